"""The near end of the socket to the engine process: submit, abort, and hand each token to who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable
from typing import Protocol

from oi.runtime.engine_child import EngineChild, Process
from oi.runtime.errors import EngineDead, OiError, RequestError
from oi.runtime.messages import Abort, Failed, Fatal, FromEngine, Ready, Shutdown, Stats, StepDone, Submit, Token
from oi.runtime.wire import WireError, from_engine_reader, pack

__all__ = ["EngineClient", "Sink"]

STALL_SECONDS = 30.0
"""No sign of life for so long: stuck. The engine sends one a second when idle, and one a step when busy."""

_LEAVE_SECONDS = 5.0
_EXIT_SECONDS = 0.2
_log = logging.getLogger("oi.engine")


class Sink(Protocol):
    """Where one sequence's tokens go. Called from the event loop; must not block."""

    def push(self, token: Token, now: float) -> None:
        """`now`: `time.perf_counter` when it arrived."""
        ...

    def flush(self) -> None:
        """All that arrived together has been pushed."""
        ...

    def fail(self, error: OiError) -> None: ...


class EngineClient(asyncio.Protocol):
    """Made inside a running event loop; `connect` starts the traffic."""

    def __init__(self, child: EngineChild, *, stall_seconds: float = STALL_SECONDS) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Ready] = loop.create_future()
        """Set once; or EngineDead where the engine cannot start."""
        self.died: asyncio.Future[str] = loop.create_future()
        """Set to the reason when the engine is gone without having been told to go."""
        self.lost = 0
        """Sequences that its death cut short."""
        self.on_stats: Callable[[Stats], None] | None = None
        """Told the engine's state after each step, and with each sign of life."""
        self._child = child
        self._stall_seconds = stall_seconds
        self._last_sign = time.monotonic()
        self._fatal: str | None = None
        self._closing = False
        self._sinks: dict[int, Sink] = {}
        self._ids = itertools.count(1)
        self._reader = from_engine_reader()
        self._transport: asyncio.Transport | None = None
        self._connected = True

    async def connect(self) -> None:
        self._child.socket.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=self._child.socket)

    @property
    def alive(self) -> bool:
        """It has started and makes progress."""
        if not self.ready.done() or not self._connected:
            return False
        return time.monotonic() - self._last_sign < self._stall_seconds

    @property
    def in_flight(self) -> int:
        """Sequences submitted and not finished."""
        return len(self._sinks)

    def next_id(self) -> int:
        return next(self._ids)

    def submit(self, message: Submit, sink: Sink) -> None:
        """Raises EngineDead."""
        if self._transport is None or self._transport.is_closing():
            raise EngineDead(self._reason())
        self._sinks[message.id] = sink
        self._transport.write(pack(message))

    def abort(self, ids: list[int]) -> None:
        """Of these, the ones that are not finished. Their sinks hear no more."""
        live = [id for id in ids if self._sinks.pop(id, None) is not None]
        if live and self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(Abort(live)))

    async def close(self) -> None:
        """Tell the engine to leave, and see that it does."""
        self._closing = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(Shutdown()))
        await asyncio.to_thread(_reap, self._child.process)
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._last_sign = time.monotonic()
        try:
            messages = self._reader.feed(data)
        except WireError as e:
            self._fatal = str(e)
            assert self._transport is not None
            self._transport.abort()
            return
        touched: list[Sink] = []
        now = time.perf_counter()
        for message in messages:
            self._handle(message, now, touched)
        for sink in touched:
            sink.flush()
        if self.on_stats is not None:  # when the tokens are on their way
            for message in messages:
                if isinstance(message, StepDone):
                    self.on_stats(message.stats)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connected = False
        error = EngineDead(self._reason())
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # who does not wait for it has asked `died`
        sinks, self._sinks = self._sinks, {}
        self.lost = len(sinks)
        for sink in sinks.values():
            sink.fail(error)
        if not self._closing:
            self.died.set_result(str(error))

    def _handle(self, message: FromEngine, now: float, touched: list[Sink]) -> None:
        """`touched` gathers the sinks that were given tokens."""
        match message:
            case StepDone(tokens):
                for token in tokens:
                    if (sink := self._sinks.get(token.id)) is not None:  # else it was just aborted
                        if token.finish is not None:
                            del self._sinks[token.id]
                        sink.push(token, now)
                        touched.append(sink)
            case Failed(id, text):
                if (sink := self._sinks.pop(id, None)) is not None:
                    sink.fail(RequestError(text))
            case Ready():
                if not self.ready.done():
                    self.ready.set_result(message)
            case Fatal(text):
                if self.ready.done():  # or whoever waits for it is told
                    _log.error("the engine gives up: %s", text)
                self._fatal = text

    def _reason(self) -> str:
        if self._fatal is not None:
            return self._fatal
        try:
            code = self._child.process.wait(_EXIT_SECONDS)  # the socket closes a moment before the process is gone
        except TimeoutError:
            return "the engine process closed its connection; start the server again"
        return f"the engine process ended with code {code}; start the server again"


def _reap(process: Process) -> None:
    with contextlib.suppress(TimeoutError):
        process.wait(_LEAVE_SECONDS)
    process.end()
