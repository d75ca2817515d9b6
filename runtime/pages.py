"""The page pool: which pages of the KV cache are free, and how many sequences hold each of the others."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ["PagePool"]


class PagePool:
    """Owns the page ids 0 … n-1, their reference counts and the free list; knows nothing of what a page holds.

    A page is free (on the free list, no reference), held (references > 0), or idle (no reference, not on the
    free list): idle pages are someone else's to remember, here the prefix index's.
    """

    def __init__(self, num_pages: int) -> None:
        self._free = deque(range(num_pages))
        self._references = np.zeros(num_pages, np.int32)

    @property
    def num_pages(self) -> int:
        return len(self._references)

    @property
    def num_free(self) -> int:
        return len(self._free)

    def references(self, page: int) -> int:
        return int(self._references[page])

    def take(self, count: int) -> list[int]:
        """The pages that were freed longest ago, now held once. Raises IndexError where so many are not free."""
        pages = [self._free.popleft() for _ in range(count)]
        self._references[pages] = 1
        return pages

    def retain(self, pages: NDArray[np.int32]) -> None:
        """One more reference to each of these held or idle pages, which are distinct."""
        self._references[pages] += 1

    def release(self, pages: NDArray[np.int32]) -> NDArray[np.int32]:
        """One reference less to each of these pages, which are distinct; returns those that nobody holds any more.

        They are idle until `free` or `retain`.
        """
        references = self._references[pages] - 1
        assert not (references < 0).any(), f"pages {pages[references < 0]} are released more often than held"
        self._references[pages] = references
        unheld: NDArray[np.int32] = pages[references == 0]
        return unheld

    def free(self, pages: list[int]) -> None:
        """What these idle pages hold is forgotten; they may be taken again, in this order."""
        assert not self._references[pages].any(), f"one of the pages {pages} is freed while held"
        self._free.extend(pages)

    def check(self, idle: set[int]) -> None:
        """Every page is in exactly one state, `idle` being those that their keeper remembers.

        Raises AssertionError that names a page lost or counted twice.
        """
        free = set(self._free)
        assert len(free) == len(self._free), "a page is on the free list twice"
        assert not free & idle, f"pages {free & idle} are free and idle at once"
        for page, count in enumerate(self._references.tolist()):
            assert count >= 0, f"page {page} has {count} references"
            states = (page in free) + (page in idle) + (count > 0)
            assert states == 1, f"page {page} is in {states} states (free, idle, held); {count} references"
