"""Server-sent events as bytes."""

from __future__ import annotations

import msgspec

__all__ = ["PLACEHOLDER", "TextEvent", "event"]

PLACEHOLDER = "\x00text\x00"
"""Stands for the text in the record that a TextEvent is made from."""

_encode = msgspec.json.Encoder().encode


def event(record: msgspec.Struct) -> bytes:
    return b"data: " + _encode(record) + b"\n\n"


class TextEvent:
    """Events that differ in one text only: a stream of tokens is thousands of these, encoded but for it once."""

    def __init__(self, record: msgspec.Struct) -> None:
        """`record` holds PLACEHOLDER where the text will be."""
        self._before, self._after = event(record).split(_encode(PLACEHOLDER))

    def fill(self, text: str) -> bytes:
        return b"".join((self._before, _encode(text), self._after))
