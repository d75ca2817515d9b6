"""The HTTP process from its first socket to its exit code."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from oi.runtime.bpe import FastBpe
from oi.runtime.engine_child import EngineChild
from oi.runtime.engine_client import EngineClient
from oi.runtime.http.app import make_app
from oi.runtime.http.service import Service
from oi.runtime.http.status import History
from oi.runtime.memory import give_back
from oi.runtime.messages import Ready
from oi.runtime.text_model import Loading, TextModel
from oi.runtime.tokenizer import Tokenizer

__all__ = ["ServerOptions", "serve"]

_BACKLOG = 1024
_LOG_SECONDS = 10
_LAST_WORDS_SECONDS = 2.0
"""After the engine's death: for error answers to reach their clients."""

_TOKENIZER_SECONDS = 0.05
"""How long ready waits for the fast tokenizer: a small one is there then, and its load costs no request anything."""
_SIGNAL_SECONDS = 0.1
"""A service manager may signal the engine too, which may then be gone a moment before our own signal is seen."""

_log = logging.getLogger("oi.http")


@dataclass(frozen=True)
class ServerOptions:
    name: str
    """What clients call the model."""
    root: str
    """Where the model came from."""
    api_key: str | None = None
    max_queue: int = 1024
    """Sequences that may wait beside those that run; more are answered 429."""
    drain_seconds: float = 30.0
    """On SIGTERM: for requests in flight to finish."""


async def serve(
    options: ServerOptions,
    child: EngineChild,
    loading: Loading,
    bound: socket.socket,
    on_ready: Callable[[Ready], None],
) -> int:
    """Serve until told to stop; the exit code: 0 after a drain, 1 where the engine died. Raises OiError at start.

    `bound` is the address to listen at; while the model loads, requests are answered 503. The garbage collector may be
    off: it is turned on when all is there.
    """
    client = EngineClient(child)
    service = Service(client, options.name, options.root, options.max_queue)
    stop = _stop_on_signals()
    runner = web.AppRunner(
        make_app(service, options.api_key), access_log=None, handler_cancellation=True, shutdown_timeout=1.0
    )
    await runner.setup()
    site = web.SockSite(runner, bound, backlog=_BACKLOG)
    watch = asyncio.create_task(_watch(service.history))
    try:
        await client.connect()
        await site.start()
        model, ready = await _load(loading, client, stop)
        if ready is None:
            return 0
        service.open(model, ready)
        gc.freeze()  # what is there stays: collections need not go through it
        gc.enable()
        on_ready(ready)
        return await _until_the_end(service, site, stop, options.drain_seconds)
    finally:
        watch.cancel()
        await client.close()
        await runner.cleanup()


async def _load(loading: Loading, client: EngineClient, stop: asyncio.Event) -> tuple[TextModel, Ready | None]:
    """Both halves of the model; None where it was told to stop meanwhile. Raises OiError."""
    model = await asyncio.wrap_future(loading.model)
    fast = asyncio.wrap_future(loading.fast)
    fast.add_done_callback(functools.partial(_take_up, model.tokenizer))
    await _first(client.ready, stop)
    if client.ready.done():
        await asyncio.wait([fast], timeout=_TOKENIZER_SECONDS)
    return model, client.ready.result() if client.ready.done() else None


def _take_up(tokenizer: Tokenizer, loaded: asyncio.Future[FastBpe | None]) -> None:
    fast = None if loaded.cancelled() else loaded.result()
    if fast is not None:
        tokenizer.take_up(fast)  # on the event loop's thread, where the library sets itself up with its first text
        asyncio.get_running_loop().run_in_executor(None, give_back)


async def _until_the_end(service: Service, site: web.BaseSite, stop: asyncio.Event, drain_seconds: float) -> int:
    died = service.client.died
    await _first(died, stop)
    if died.done():
        await asyncio.sleep(_SIGNAL_SECONDS)
        if stop.is_set() and not service.client.lost:
            return 0
        _log.error("the engine died: %s", died.result())
        await _idle(service, _LAST_WORDS_SECONDS)
        return 1
    service.draining = True
    await site.stop()
    _log.info("draining %d requests; a second signal ends them", service.requests)
    if not await _idle(service, drain_seconds):
        _log.warning("%d requests did not finish within %g s", service.requests, drain_seconds)
        service.give_up()
        await _idle(service, _LAST_WORDS_SECONDS)
    return 1 if service.client.lost else 0


async def _first(future: asyncio.Future[Any], stop: asyncio.Event) -> None:
    """Wait for either."""
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    await asyncio.wait([future, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()


async def _idle(service: Service, seconds: float) -> bool:
    """Wait until no request is in flight; False where that takes too long."""
    deadline = time.monotonic() + seconds
    while service.requests and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return not service.requests


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once."""
    stop = asyncio.Event()

    def answer(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the engine leaves when its socket closes
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, answer, number)
    return stop


async def _watch(history: History) -> None:
    """Sample the state each second, and log it each ten in which something happened."""
    while True:
        for _ in range(_LOG_SECONDS):
            await asyncio.sleep(1.0)
            history.tick()
        if line := history.line(_LOG_SECONDS):
            _log.info("%s", line)
