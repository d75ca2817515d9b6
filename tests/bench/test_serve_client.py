"""Every way in which a server can fail a request is told apart, and what came before it is kept."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import pytest

from bench.serve.client import Record, ask, open_session
from tests.bench.fake_openai import GAP_SECONDS, FakeOpenAI


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


def _ask(url: str, model: str, output: int = 5, timeout: float = 5.0) -> Record:
    async def once() -> Record:
        async with open_session() as session:
            body = json.dumps({"model": model, "max_tokens": output}).encode()
            return await ask(session, url, body, due=time.perf_counter(), output=output, timeout=timeout)

    return asyncio.run(once())


def test_a_good_answer(server: FakeOpenAI) -> None:
    before = time.perf_counter()
    record = _ask(server.url, "ok")
    assert record.failure is None
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (5, 5, 3)
    assert len(record.chunks) == 5
    assert before <= record.due <= record.sent
    assert record.chunks[0] - record.sent >= GAP_SECONDS * 0.9
    assert record.chunks == sorted(record.chunks)
    assert record.chunks[-1] - record.chunks[0] >= 4 * GAP_SECONDS * 0.9
    assert record.chunks[-1] <= record.ended <= time.perf_counter()


@pytest.mark.parametrize(
    ("model", "failure", "chunks"),
    [
        ("refuse", "http 429", 0),
        ("cut", "cut", 2),
        ("unfinished", "cut", 2),
        ("error", "error event", 2),
        ("garbage", "malformed", 0),
        ("silent", "malformed", 0),
        ("short", "wrong length", 4),
        ("stall", "timeout", 2),
        ("hang", "timeout", 0),
    ],
)
def test_failures(server: FakeOpenAI, model: str, failure: str, chunks: int) -> None:
    record = _ask(server.url, model, timeout=0.5)
    assert record.failure == failure, record.message
    assert len(record.chunks) == chunks
    assert record.message
    assert record.ended > record.sent


def test_nobody_there() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        record = _ask(f"http://127.0.0.1:{s.getsockname()[1]}/v1/completions", "ok")
    assert record.failure == "connection"
