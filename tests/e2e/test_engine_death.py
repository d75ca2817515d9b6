"""The engine is killed under load: every client is told at once, nobody is answered 200, and the server ends."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
from typing import Any

import aiohttp
import psutil

from tests.http.server_process import RUN_REAL, ServerProcess

RUNNING, WAITING = 8, 8
_LONG = {"prompt": "def", "max_tokens": 4000, "ignore_eos": True}


def test_kill_under_load() -> None:
    with ServerProcess("--max-num-seqs", str(RUNNING), command=RUN_REAL) as server:
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200
        answers, seen = asyncio.run(_kill_under_load(server))
        assert server.wait() == 1
        log = "".join(server.log)
    assert "the engine died" in log
    assert "Traceback" not in log
    streams, whole = answers[::2], answers[1::2]
    for status, text in whole:
        assert status == 500
        assert json.loads(text)["error"]["code"] == "engine_dead"
    begun = [text for status, text in streams if status == 200]
    assert len(begun) == RUNNING // 2, "those that ran had been sent tokens"
    for text in begun:
        *tokens, error, rest = text.split("\n\n")
        assert tokens
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "engine_dead"
        assert rest == ""
    assert {status for status, _ in streams} == {200, 500}
    health, completions = zip(*seen, strict=True)
    assert 503 in health
    assert set(health[health.index(503) :]) <= {503, None}, "never well again"
    assert set(completions) <= {500, 503, None}
    assert 503 in completions


async def _kill_under_load(server: ServerProcess) -> tuple[list[tuple[int, str]], list[tuple[int | None, int | None]]]:
    """What became of requests in flight, every second of them streamed; what is said of health and to others after."""
    (engine,) = psutil.Process(server.process.pid).children(recursive=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(stream: bool) -> tuple[int, str]:
            async with session.post(server.url + "/v1/completions", json={**_LONG, "stream": stream}) as response:
                return response.status, await response.text()

        def ask_all(n: int) -> list[asyncio.Task[tuple[int, str]]]:
            return [asyncio.create_task(ask(stream=i % 2 == 0)) for i in range(n)]

        asked = ask_all(RUNNING)
        await asyncio.to_thread(server.wait_metric, "num_requests_running", RUNNING, 30)
        await asyncio.to_thread(_wait_tokens, server, 5 * RUNNING)
        asked += ask_all(WAITING)
        await asyncio.to_thread(server.wait_metric, "num_requests_waiting", WAITING, 30)
        engine.kill()
        seen = await asyncio.to_thread(_watch, server)
        return await asyncio.gather(*asked), seen


def _wait_tokens(server: ServerProcess, n: int) -> None:
    deadline = time.monotonic() + 30
    while server.metric("generation_tokens_total") < n:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _watch(server: ServerProcess) -> list[tuple[int | None, int | None]]:
    """Statuses of /health and of a new request, again and again until the server has ended; None: nobody answers."""
    seen = []
    deadline = time.monotonic() + 10
    while server.process.poll() is None and time.monotonic() < deadline:
        seen.append((_status(server.get, "/health"), _status(server.post, "/v1/completions", {"prompt": "x"})))
    return seen


def _status(ask: Any, *arguments: Any) -> int | None:
    try:
        return int(ask(*arguments)[0])
    except (urllib.error.URLError, OSError):
        return None
