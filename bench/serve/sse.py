"""Server-sent events out of a stream of bytes cut anywhere."""

from __future__ import annotations

__all__ = ["DONE", "EventParser"]

DONE = b"[DONE]"
"""The data of OpenAI's last event."""


class EventParser:
    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that is complete now; comments and other fields are left out."""
        *events, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
        return [found for event in events if (found := _data(event))]


def _data(event: bytes) -> bytes:
    lines = (line.removeprefix(b"data:") for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line.removeprefix(b" ") for line in lines)
