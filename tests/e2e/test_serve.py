"""The served bundled model: what a serving process imports, and a thousand requests of all kinds."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.http.server_process import RUN_REAL, ServerProcess

REQUESTS = 1_000
IN_FLIGHT = 48
COMPILE_TIME = ("torch", "triton", "tvm", "tvm_ffi", "numba", "transformers", "oi.ir", "oi.codegen", "oi.models")


@pytest.fixture(scope="module")
def server(bundled_artifact: Path) -> Iterator[ServerProcess]:
    """A small pool of pages, so that eviction and preemption happen."""
    with ServerProcess("--artifact", str(bundled_artifact), "--max-num-seqs", "16", command=RUN_REAL) as server:
        yield server


def test_a_serving_process_imports_no_compiler(bundled: Path, bundled_artifact: Path) -> None:
    """In a fresh process: load the artifact, compute a step, load the server's modules, and look at sys.modules."""
    script = f"""
import sys
from oi.runtime.engine import Engine
from oi.runtime.engine_process import main
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.http.server import *
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.step import open_runner
engine = Engine(open_runner(EngineSettings({str(bundled_artifact)!r}, {str(bundled)!r})))
engine.submit(Submit(1, [5, 6, 7], SamplingParams(), max_tokens=2, logprobs=3))
assert engine.step().tokens and engine.step().tokens
names = {COMPILE_TIME!r}
print([m for m in sys.modules if m in names or m.startswith(tuple(n + "." for n in names))])
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (out.stdout.strip(), out.returncode) == ("[]", 0), out.stderr


async def one_request(session: aiohttp.ClientSession, prefixes: list[list[int]], rng: random.Random) -> str:
    """A request of any kind; about one in five goes away before its end. Returns how it went."""
    prompt = rng.choice(prefixes)[: rng.randint(1, 300)] + rng.choices(range(4000), k=rng.randint(0, 40))
    body = {
        "prompt": prompt or [1],
        "max_tokens": rng.randint(1, 24),
        "stream": rng.random() < 0.7,
        "temperature": rng.choice([0, 0.7, 1.5]),
        "top_p": rng.choice([1, 0.9]),
        "top_k": rng.choice([0, 5]),
        "n": rng.choice([1, 1, 1, 3]),
        "ignore_eos": rng.random() < 0.5,
        "frequency_penalty": rng.choice([0, 0, 0.5]),
        "logprobs": rng.choice([None, None, 0, 4]),
        "stop": rng.choice([None, None, ["\n\n"]]),
    }
    patience = rng.uniform(0, 0.5) if rng.random() < 0.2 else None
    try:
        async with asyncio.timeout(patience), session.post("/v1/completions", json=body) as response:
            text = await response.text()
            assert response.status == 200, text
    except TimeoutError:
        return "gone"
    if body["stream"]:
        events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        reasons = [c["finish_reason"] for e in events[:-1] for c in json.loads(e)["choices"] if c["finish_reason"]]
    else:
        reasons = [choice["finish_reason"] for choice in json.loads(text)["choices"]]
    assert len(reasons) == body["n"]
    assert set(reasons) <= {"stop", "length"}
    return "done"


async def soak(url: str) -> dict[str, int]:
    seed = random.SystemRandom().getrandbits(32)
    rng = random.Random(seed)
    print(f"seed {seed}")
    prefixes = [rng.choices(range(4000), k=300) for _ in range(6)]
    gate = asyncio.Semaphore(IN_FLIGHT)
    outcomes = {"done": 0, "gone": 0}
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def guarded() -> None:
            async with gate:
                outcomes[await one_request(session, prefixes, rng)] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(REQUESTS):
                group.create_task(guarded())
    return outcomes


@pytest.mark.slow
def test_soak_ends_with_every_page_free(server: ServerProcess) -> None:
    outcomes = asyncio.run(soak(server.url))
    assert outcomes["gone"] > REQUESTS // 20
    assert outcomes["done"] > REQUESTS // 2
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        server.wait_metric(name, 0, seconds=30)
    assert server.metric("prefix_cache_hits_total") > 0
    assert server.metric("num_preemptions_total") > 0
