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
        self._arrived = memoryview(bytearray(_CHUNK))
        """What one read brings: memory of its own each time would cost as much as the reading."""

    def receive(self, timeout: float, other: int | None = None) -> list[ToEngine]:
        """All messages that have arrived; where there are none, wait up to `timeout` seconds for some.

        Or until the descriptor `other` is readable. Raises ChannelClosed, WireError.
        """
        readable = self._wait(timeout, [] if other is None else [other])
        self._flush()
        messages: list[ToEngine] = []
        while readable:
            size = self._read()
            messages += self._reader.feed(self._arrived[:size])
            readable = size == _CHUNK
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

    def _wait(self, timeout: float, others: list[int]) -> bool:
        """Whether something has arrived."""
        own = self._sock.fileno()
        write = [own] if self._unsent else []
        readable, _, _ = select.select([own, *others], write, [], timeout)
        return own in readable

    def _read(self) -> int:
        """How many bytes have arrived."""
        try:
            size = self._sock.recv_into(self._arrived)
        except BlockingIOError:
            return 0
        except ConnectionError as e:
            raise ChannelClosed from e
        if not size:
            raise ChannelClosed
        return size

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as e:
            raise ChannelClosed from e
