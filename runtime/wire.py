"""Frames on the socket between the HTTP process and the engine process.

A frame is the body's length (4 bytes, little-endian) and the body, one msgpack record of `messages.py`. Token ids in it
are the bytes of int32, as this machine has them: a prompt is copied, and never looked at token by token.
"""

from __future__ import annotations

from array import array
from typing import Any, Generic, TypeVar

import msgspec

from oi.runtime.messages import FromEngine, ToEngine, TokenIds

__all__ = ["MAX_FRAME_BYTES", "FrameReader", "WireError", "from_engine_reader", "pack", "to_engine_reader"]

MAX_FRAME_BYTES = 1 << 28
"""A longer body is a broken stream: the longest true one, a prompt at four bytes a token, is far below."""

_HEADER_BYTES = 4
_Message = TypeVar("_Message")


class WireError(Exception):
    """The stream does not hold frames of the expected records: the ends differ in version, or it is broken."""


def _to_bytes(ids: Any) -> memoryview:
    assert isinstance(ids, array), f"{type(ids)} is not token ids"
    assert ids.typecode == "i"
    return memoryview(ids).cast("B")


def _from_bytes(type: Any, content: Any) -> TokenIds:
    if not isinstance(content, bytes):
        raise TypeError("token ids are bytes")
    return array("i", content)


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_bytes)


def pack(message: ToEngine | FromEngine) -> bytes:
    """One frame."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_HEADER_BYTES, "little") + body


class FrameReader(Generic[_Message]):
    """Cuts a byte stream, fed in pieces of any size, into messages. It keeps the last, unfinished frame."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[_Message]) -> None:
        self._decoder = decoder
        self._pending = bytearray()

    def feed(self, data: bytes | memoryview) -> list[_Message]:
        """Messages that `data` completes, in order. Raises WireError; the stream is of no use after it."""
        if not self._pending:  # whole frames are read where they are
            messages, end = self._cut(memoryview(data))
            self._pending += data[end:]
            return messages
        self._pending += data
        with memoryview(self._pending) as pending:
            messages, end = self._cut(pending)
        del self._pending[:end]
        return messages

    def _cut(self, data: memoryview) -> tuple[list[_Message], int]:
        """All whole messages, and where they end."""
        messages = []
        start = 0
        while (body := start + _HEADER_BYTES) <= len(data):
            length = int.from_bytes(data[start:body], "little")
            if length > MAX_FRAME_BYTES:
                raise WireError(f"a frame claims {length} bytes, more than {MAX_FRAME_BYTES}")
            if body + length > len(data):
                break
            messages.append(self._decode(data[body : body + length]))
            start = body + length
        return messages, start

    def _decode(self, body: memoryview) -> _Message:
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as e:
            raise WireError(f"a frame of {len(body)} bytes is not a known message: {e}") from e


def to_engine_reader() -> FrameReader[ToEngine]:
    """For the engine's end."""
    decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine, dec_hook=_from_bytes)
    return FrameReader(decoder)


def from_engine_reader() -> FrameReader[FromEngine]:
    """For the HTTP process's end."""
    decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)
    return FrameReader(decoder)
