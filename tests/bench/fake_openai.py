"""A completions server that does what its model's name says, well or badly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

GAP_SECONDS = 0.02
CHUNK = b'data: {"choices":[{"index":0,"text":" a","finish_reason":null}],"usage":null}\n\n'


class FakeOpenAI:
    """Runs in a thread while it is open. `bodies` are the requests it got."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> FakeOpenAI:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/completions", self._complete)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/completions"

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if body["model"] == "refuse":
            return web.Response(status=429, text="too many")
        if body["model"] == "hang":
            await asyncio.sleep(60)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await _STREAMS[body["model"]](request, response, body["max_tokens"])
        return response


async def _tokens(response: web.StreamResponse, n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(GAP_SECONDS)
        await response.write(CHUNK)


async def _end(response: web.StreamResponse, n: int) -> None:
    details = b'"prompt_tokens_details":{"cached_tokens":3}'
    await response.write(
        b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d,%s}}\n\n' % (n, details)
    )
    await response.write(b"data: [DONE]\n\n")


async def _ok(request: web.Request, response: web.StreamResponse, n: int) -> None:
    await _tokens(response, n)
    await _end(response, n)


async def _short(request: web.Request, response: web.StreamResponse, n: int) -> None:
    await _tokens(response, n - 1)
    await _end(response, n - 1)


async def _stall(request: web.Request, response: web.StreamResponse, n: int) -> None:
    await _tokens(response, 2)
    await asyncio.sleep(60)


async def _cut(request: web.Request, response: web.StreamResponse, n: int) -> None:
    await _tokens(response, 2)
    assert request.transport is not None
    request.transport.abort()


async def _unfinished(request: web.Request, response: web.StreamResponse, n: int) -> None:
    """A well-formed end of the stream, too early."""
    await _tokens(response, 2)


async def _error(request: web.Request, response: web.StreamResponse, n: int) -> None:
    await _tokens(response, 2)
    await response.write(b'data: {"error":{"message":"out of luck"}}\n\n')
    await response.write(b"data: [DONE]\n\n")


async def _garbage(request: web.Request, response: web.StreamResponse, n: int) -> None:
    await response.write(b"data: {not json\n\n")


async def _silent(request: web.Request, response: web.StreamResponse, n: int) -> None:
    await _end(response, n)


_STREAMS: dict[str, Callable[[web.Request, web.StreamResponse, int], Awaitable[None]]] = {
    "ok": _ok,
    "short": _short,
    "stall": _stall,
    "cut": _cut,
    "unfinished": _unfinished,
    "error": _error,
    "garbage": _garbage,
    "silent": _silent,
}
