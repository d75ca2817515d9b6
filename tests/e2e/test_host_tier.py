"""The host tier with real kernels: same text, found again on one tier or the other, preempted and back."""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from oi.runtime.artifact import open_artifact
from oi.runtime.engine import Engine
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.step import open_runner

PROMPT, ANSWER, PROMPTS = 100, 8, 12
GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def prompts(bundled: Path) -> list[list[int]]:
    """Of which none begins like another."""
    source = "\n".join(inspect.getsource(module) for module in (inspect, random, json.encoder, json.decoder))
    ids = Tokenizer.from_file(str(bundled / "tokenizer.json")).encode(source).ids
    step = len(ids) // PROMPTS
    return [ids[i * step : i * step + PROMPT] for i in range(PROMPTS)]


@pytest.fixture(scope="module")
def engine_with(bundled: Path, bundled_artifact: Path) -> Callable[..., Engine]:
    """`pages` on the device, `slots` on the host."""
    page_bytes = open_artifact(bundled_artifact).manifest.kv.page_bytes

    def make(pages: int, slots: int | None) -> Engine:
        host = None if slots is None else slots * page_bytes
        settings = EngineSettings(
            str(bundled_artifact), str(bundled), PROMPT + ANSWER * 6, kv_bytes=pages * page_bytes, host_kv_bytes=host
        )
        return Engine(open_runner(settings))

    return make


def run(engine: Engine, *requests: Submit) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Tokens by id, and how many of each prompt were found."""
    tokens: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for token in engine.step().tokens:
            tokens.setdefault(token.id, []).append(token.token)
            found[token.id] = found.get(token.id, 0) + (token.cached or 0)
    engine.scheduler.check()
    return tokens, found


@pytest.fixture(scope="module")
def expected(engine_with: Callable[..., Engine], prompts: list[list[int]]) -> list[list[int]]:
    """Each alone, without a tier and without what others left."""
    requests = (Submit(0, prompt, GREEDY, ANSWER * 6) for prompt in prompts)
    return [run(engine_with(40, None), request)[0][0] for request in requests]


def test_three_times_the_pool_at_random(
    engine_with: Callable[..., Engine], prompts: list[list[int]], expected: list[list[int]]
) -> None:
    full = (PROMPT - 1) // 16
    engine, rng = engine_with(PROMPTS * full // 3, PROMPTS * full), random.Random()
    for id_, prompt in enumerate(prompts):
        run(engine, Submit(id_, prompt, GREEDY, 1))
    computed = engine.stats().prompt_tokens
    for id_ in range(100, 160):
        which = rng.randrange(PROMPTS)
        tokens, found = run(engine, Submit(id_, prompts[which], GREEDY, ANSWER))
        assert (tokens[id_], found[id_]) == (expected[which][:ANSWER], full * 16)
    stats = engine.stats()
    assert stats.prompt_tokens - computed == 60 * (PROMPT - full * 16)
    assert stats.prefix_hits + stats.host_hits == 60 * full * 16
    assert stats.host_hits > 20 * full * 16, "two of three are on the host"
    assert stats.restored_bytes > 0
    assert stats.restore_seconds > 0


def test_preempted_sequences_come_back_from_the_host(
    engine_with: Callable[..., Engine], prompts: list[list[int]], expected: list[list[int]]
) -> None:
    engine = engine_with(18, 200)  # two begin, and then do not fit
    tokens, _ = run(engine, *(Submit(id_, prompt, GREEDY, ANSWER * 6) for id_, prompt in enumerate(prompts)))
    assert [tokens[id_] for id_ in range(PROMPTS)] == expected
    stats = engine.stats()
    assert stats.preemptions > 0
    assert stats.restored_bytes > 0
