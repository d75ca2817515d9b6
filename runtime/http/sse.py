"""Server-sent events: one write for all of a request's news, and no write before there is any.

A client that reads slowly holds up nobody: its news gathers, a few bytes a token, and the next write takes it all.
"""

from __future__ import annotations

import contextlib
import logging

import msgspec
from aiohttp import web

from oi.runtime.errors import OiError
from oi.runtime.generation import Generation
from oi.runtime.http.errors import as_api_error
from oi.runtime.http.shapes import Shape, usage_of

__all__ = ["stream"]

_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_log = logging.getLogger("oi.http")
_encode = msgspec.json.Encoder().encode


def _event(record: msgspec.Struct) -> bytes:
    return b"data: " + _encode(record) + b"\n\n"


async def stream(
    request: web.Request, id: str, generation: Generation, shape: Shape, n: int, *, include_usage: bool
) -> web.StreamResponse:
    """Raises what goes wrong before the first byte; later errors are the stream's last event."""
    response = web.StreamResponse(headers={**_HEADERS, "X-Request-Id": id})
    with contextlib.suppress(ConnectionResetError):  # the client left; the generation's end aborts
        try:
            await _write_all(request, response, generation, shape, n, include_usage=include_usage)
        except OiError as e:
            if not response.prepared:
                raise
            _log.error("request=%s ends with an error: %s", id, e)
            await response.write(b"data: " + as_api_error(e).body + b"\n\n")
        await response.write_eof()
    return response


async def _write_all(
    request: web.Request,
    response: web.StreamResponse,
    generation: Generation,
    shape: Shape,
    n: int,
    *,
    include_usage: bool,
) -> None:
    async for outputs in generation.news():
        events = b"".join(_event(chunk) for output in outputs for chunk in shape.chunks(output))
        if events:
            await _write(request, response, events)
    end = _event(shape.usage_chunk(usage_of(generation.outputs, n))) if include_usage else b""
    await _write(request, response, end + b"data: [DONE]\n\n")


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    if not response.prepared:
        await response.prepare(request)
    await response.write(data)
