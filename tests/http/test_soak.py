"""A thousand mixed requests, many of whose clients leave: at the end every page is free and nothing runs."""

import asyncio
import random

import aiohttp
import pytest

from tests.http.server_process import RUN_REAL, ServerProcess

REQUESTS, AT_ONCE = 1000, 32
WORDS = ["def", "class", "self", "return", "import", "value", "for", "in", "range", "lambda", "yield", "None", "True"]


def make_body(rng: random.Random) -> tuple[str, dict[str, object]]:
    shared = " ".join(random.Random(rng.randrange(5)).choices(WORDS, k=16))  # prefixes that come again
    text = shared[: rng.randrange(len(shared))] + " ".join(rng.choices(WORDS, k=rng.randrange(10)))
    body: dict[str, object] = {
        "max_tokens": rng.randint(1, 56),  # more than a page, so that running sequences grow out of theirs
        "temperature": rng.choice([0, 0.7, 1.5]),
        "stream": rng.random() < 0.6,
        "n": rng.choice([1, 1, 1, 2, 3]),
        "ignore_eos": rng.random() < 0.6,
    }
    optional: dict[str, object] = {
        "stop": [" ", "self"],
        "seed": rng.randrange(100),
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.5,
        "logit_bias": {"5": -100},
        "top_p": 0.8,
        "top_k": 5,
        "min_p": 0.05,
        "return_token_ids": True,
    }
    body |= {name: value for name, value in optional.items() if rng.random() < 0.2}
    if rng.random() < 0.3:
        return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
    return "/v1/completions", body | {"prompt": text or "x"}


async def soak(url: str, rng: random.Random) -> tuple[int, int]:
    """(answered, left)"""
    slots = asyncio.Semaphore(AT_ONCE)
    answered = left = 0

    async def one(session: aiohttp.ClientSession) -> None:
        nonlocal answered, left
        path, body = make_body(rng)
        patience = rng.expovariate(1 / 0.1) if rng.random() < 0.4 else 120.0
        async with slots:
            try:
                async with asyncio.timeout(patience), session.post(url + path, json=body) as response:
                    text = await response.text()
                    assert response.status == 200, text
                    assert '"error":' not in text, text[text.index('"error":') :]
                answered += 1
            except TimeoutError:
                left += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session) for _ in range(REQUESTS)))
    return answered, left


def check(server: ServerProcess) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    answered, left = asyncio.run(soak(server.url, random.Random(seed)))
    assert answered + left == REQUESTS
    assert left > 20
    assert answered > 400
    server.wait_metric("num_requests_running", 0, seconds=20)
    server.wait_metric("num_requests_waiting", 0)
    server.wait_metric("kv_cache_usage_perc", 0)
    assert server.get("/health")[0] == 200
    log = "".join(server.log)
    assert "ERROR" not in log, log


@pytest.mark.slow
def test_a_thousand_requests_leave_nothing_behind(server: ServerProcess) -> None:
    check(server)


@pytest.mark.slow
def test_nor_on_the_real_engine_short_of_pages() -> None:
    """With so few pages that running sequences are preempted and cached prefixes evicted."""
    with ServerProcess("--kv-cache-mib", "2", command=RUN_REAL) as real:
        check(real)
        assert real.metric("prefix_cache_hits_total") > 0
        assert real.metric("num_preemptions_total") > 0
