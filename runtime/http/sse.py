"""Streams of server-sent events: one write for all of a request's news, and no write before there is any.

The task that serves the request sends what comes first and last. Between them each step's news is written as it
arrives, with no task to wake, straight to the connection. Only a client that reads slowly is left to the task: its
news gathers, a few bytes a token, holding up nobody, and the next write takes it all.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from aiohttp import web
from aiohttp.http import HttpVersion11

from oi.runtime.errors import OiError
from oi.runtime.generation import Generation, Output
from oi.runtime.http.errors import as_api_error
from oi.runtime.http.events import event
from oi.runtime.http.shapes import Shape, usage_of

__all__ = ["stream"]

_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_log = logging.getLogger("oi.http")


async def stream(
    request: web.Request, id: str, generation: Generation, shape: Shape, n: int, *, include_usage: bool
) -> web.StreamResponse:
    """Raises what goes wrong before the first byte; later errors are the stream's last event."""
    response = _EventStream(headers={**_HEADERS, "X-Request-Id": id})
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    with contextlib.suppress(ConnectionResetError):  # the client left; the generation's end aborts
        try:
            await _write_news(request, response, generation, shape)
            end = event(shape.usage_chunk(usage_of(generation.outputs, n))) if include_usage else b""
            end += b"data: [DONE]\n\n"
        except OiError as e:
            if not response.prepared:
                raise
            _log.error("request=%s ends with an error: %s", id, e)
            end = b"data: " + as_api_error(e).body + b"\n\n"
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof(end)
    return response


class _EventStream(web.StreamResponse):
    _send_headers_immediately = False  # but with the first event: clients wake once, not twice


async def _write_news(request: web.Request, response: web.StreamResponse, generation: Generation, shape: Shape) -> None:
    async for outputs in generation.news():
        if events := _events(shape, outputs):
            if not response.prepared:
                await response.prepare(request)
            await response.write(events)
            generation.reader = _Direct(request, response, generation, shape).write


def _events(shape: Shape, outputs: Iterable[Output]) -> bytes:
    return b"".join([events for output in outputs for events in shape.events(output)])


class _Direct:
    """Writes news to the connection, beside a response that has begun and has nothing left to write."""

    def __init__(
        self, request: web.Request, response: web.StreamResponse, generation: Generation, shape: Shape
    ) -> None:
        self._request = request
        self._chunked = response.chunked
        self._generation = generation
        self._shape = shape

    def write(self) -> bool:
        """False where the client has left, or has not yet been sent what was written before."""
        transport = self._request.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        data = _events(self._shape, [output for output in self._generation.outputs if output.has_news])
        if data:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        return True
