"""The engine's end of the socket: frames in and out without ever waiting for the other side to read."""

from __future__ import annotations

import select
import socket

from oi.runtime.messages import FromEngine, ToEngine
from oi.runtime.wire import pack, to_engine_reader

__all__ = ["Channel", "ChannelClosed"]

_CHUNK = 1 << 18


class ChannelClosed(Exception):
    """The other side closed its end, or died."""


class Channel:
    """What cannot be sent yet is kept and sent at the next call; the kernel's buffer takes it all in general."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reader = to_engine_reader()
        self._unsent = bytearray()

    def receive(self, timeout: float, other: int | None = None) -> list[ToEngine]:
        """All messages that have arrived; where there are none, wait up to `timeout` seconds for some.

        Or until the descriptor `other` is readable. Raises ChannelClosed, WireError.
        """
        self._wait(timeout, [] if other is None else [other])
        self._flush()
        messages: list[ToEngine] = []
        while (data := self._read()) is not None:
            messages += self._reader.feed(data)
        return messages

    def send(self, message: FromEngine) -> None:
        """Raises ChannelClosed."""
        self._unsent += pack(message)
        self._flush()

    def send_last(self, message: FromEngine, timeout: float) -> None:
        """Send, and wait up to `timeout` seconds at a time until all is sent; for a process about to end."""
        try:
            self.send(message)
            self._sock.settimeout(timeout)
            self._sock.sendall(self._unsent)
        except (ChannelClosed, OSError):
            return

    def _wait(self, timeout: float, others: list[int]) -> None:
        write = [self._sock] if self._unsent else []
        select.select([self._sock.fileno(), *others], write, [], timeout)

    def _read(self) -> bytes | None:
        """None when nothing has arrived."""
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return None
        except ConnectionError as e:
            raise ChannelClosed from e
        if not data:
            raise ChannelClosed
        return data

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as e:
            raise ChannelClosed from e
