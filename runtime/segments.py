"""Token ids of texts met before. A conversation is sent anew every turn, and only its last messages are new."""

from __future__ import annotations

from threading import Lock

from oi.runtime.messages import TokenIds

__all__ = ["SegmentCache"]


class SegmentCache:
    """Least recently used first to go, within a bound on memory. Safe to use from several threads.

    What is cached is the whole text between two special tokens: its ids depend on nothing else, as special tokens
    are cut out before normalization, splitting and merging see the text.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._ids: dict[str, TokenIds] = {}
        self._lock = Lock()

    def get(self, text: str) -> TokenIds | None:
        """Not to be changed."""
        with self._lock:
            ids = self._ids.pop(text, None)
            if ids is not None:
                self._ids[text] = ids
            return ids

    def put(self, text: str, ids: TokenIds) -> None:
        size = _bytes_of(text, ids)
        if size > self._max_bytes // 2:  # would drive out all others
            return
        with self._lock:
            if text in self._ids:
                return
            self._ids[text] = ids
            self._bytes += size
            while self._bytes > self._max_bytes:
                oldest = next(iter(self._ids))
                self._bytes -= _bytes_of(oldest, self._ids.pop(oldest))


def _bytes_of(text: str, ids: TokenIds) -> int:
    """Roughly: the string's and the ids' own memory, and the entry's."""
    return text.__sizeof__() + ids.__sizeof__() + 128
