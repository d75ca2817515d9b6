"""The prefix index: which page holds which full page of tokens, after which prefix.

A page's identity is a hash chained over all tokens before it:

    hash[-1] = H(salt)        hash[i] = H(hash[i-1] · tokens of page i as int32)

so equal hashes mean equal tokens at equal positions under the same salt (H is blake2b with 128 bits: a
collision needs about 2^64 pages, by accident or by design).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

__all__ = ["Chains", "PrefixIndex", "partial_hash", "root_hash"]

_RUN = 32
"""Pages whose hashes are remembered together."""

_MOST_RUNS = 2048
"""Remembered. One takes about 4 kB, and the hashes, which the index has too while it has the pages."""

_AT_ONCE = 1024
"""Idle pages that are put in order together."""


def root_hash(salt: str) -> bytes:
    """The chain's start; sequences of different salts share nothing."""
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16, person=b"oi.prefix.root").digest()


def partial_hash(parent: bytes, tokens: array[int]) -> bytes:
    """Of a page that is not full, behind the page (or root) whose hash is `parent`."""
    return blake2b(parent + tokens.tobytes(), digest_size=16, person=b"oi.prefix.part").digest()


class Chains:
    """Computes hashes of pages, and remembers those of runs of tokens met before: what is sent again costs next to
    nothing.
    """

    def __init__(self, page_size: int) -> None:
        self._page_bytes = 4 * page_size
        self._runs: dict[bytes, list[bytes]] = {}
        """Hash before the run, and the run's tokens → its hashes. Least recently used first."""

    def extend(self, root: bytes, chain: list[bytes], tokens: array[int], num_pages: int) -> None:
        """Append hashes to `chain` until it covers the first `num_pages` full pages of `tokens`."""
        if num_pages <= len(chain):
            return
        size = self._page_bytes
        begin = len(chain) * size
        content = memoryview(tokens).cast("B")[begin : num_pages * size].tobytes()
        run = _RUN * size if len(chain) % _RUN == 0 else len(content)
        for at in range(0, len(content), run):
            parent = chain[-1] if chain else root
            chain += self._hashes(parent, content[at : at + run])

    def _hashes(self, parent: bytes, content: bytes) -> list[bytes]:
        if len(content) != _RUN * self._page_bytes:
            return _hash_pages(parent, content, self._page_bytes)
        key = parent + content
        found = self._runs.pop(key, None) or _hash_pages(parent, content, self._page_bytes)
        self._runs[key] = found
        if len(self._runs) > _MOST_RUNS:
            del self._runs[next(iter(self._runs))]
        return found


def _hash_pages(parent: bytes, content: bytes, page_bytes: int) -> list[bytes]:
    hashes = []
    for at in range(0, len(content), page_bytes):
        parent = blake2b(parent + content[at : at + page_bytes], digest_size=16).digest()
        hashes.append(parent)
    return hashes


class PrefixIndex:
    """Owns the map hash ↔ page and the LRU order of idle pages (indexed, held by no sequence).

    Pages of one sequence must be parked last page first. Then a page always stands before its parents in the
    LRU order (a sequence that holds a page holds its parents too, and parks them after it), so evicting in
    that order never cuts a chain in the middle.

    The pages that stand first in that order may be aged, a mark that they bear until they are held again or evicted.

    The order is that of the numbers that pages get when they are parked, so that a sequence's pages are parked, and
    held again, all at once. Who stands first is found for many at a time (`_Queue`).
    """

    def __init__(self, num_pages: int) -> None:
        self._page_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self._parked = np.zeros(num_pages, np.int64)
        """When: a number of its own for each parking, which rises; 0 of pages that are not idle."""
        self._last_parked = 0
        self._last_aged = 0
        """Idle pages parked up to then are aged."""
        self._to_evict, self._to_age = _Queue(self._parked), _Queue(self._parked)
        self.num_idle = 0
        self.num_aged = 0

    def find(self, hashes: Sequence[bytes]) -> list[int]:
        """The page of each; -1 where there is none."""
        return list(map(self._page_of.get, hashes, repeat(-1)))

    def holds(self, page: int) -> bool:
        return page in self._hash_of

    def count_idle(self, pages: NDArray[np.int32]) -> int:
        return int(np.count_nonzero(self._parked[pages]))

    def insert(self, hashes: Sequence[bytes], pages: Sequence[int]) -> None:
        """Pages held by a sequence have the content of these hashes, which no other page has."""
        before = len(self._page_of)
        self._page_of.update(zip(hashes, pages, strict=True))
        self._hash_of.update(zip(pages, hashes, strict=True))
        assert len(self._page_of) == len(self._hash_of) == before + len(pages), "a hash has one page, a page one hash"

    def park(self, pages: NDArray[np.int32]) -> None:
        """The last sequence that held them let them go: they may be evicted, in this order, after all parked before."""
        first = self._last_parked + 1
        self._last_parked += len(pages)
        self._parked[pages] = np.arange(first, first + len(pages))
        self.num_idle += len(pages)

    def unpark(self, pages: NDArray[np.int32]) -> None:
        """A sequence holds `pages` again. Nothing happens to those that were not idle."""
        parked = self._parked[pages]
        self.num_idle -= int(np.count_nonzero(parked))
        self.num_aged -= int(np.count_nonzero(parked[parked <= self._last_aged]))
        self._parked[pages] = 0

    def evict(self, count: int) -> tuple[NDArray[np.int32], list[bytes]]:
        """Forget the `count` idle pages that were parked longest ago, and their hashes. There must be as many."""
        pages = self._to_evict.take(count)
        self.unpark(pages)
        hashes = [self._hash_of.pop(page) for page in pages.tolist()]
        for hash_ in hashes:
            del self._page_of[hash_]
        return pages, hashes

    def age(self, count: int) -> tuple[NDArray[np.int32], list[bytes]]:
        """The `count` pages that would be evicted first of those not aged are aged now. There must be as many."""
        pages = self._to_age.take(count, self._last_aged)
        if count:
            self._last_aged = int(self._parked[pages[-1]])
        self.num_aged += count
        return pages, [self._hash_of[page] for page in pages.tolist()]

    def idle_pages(self) -> list[int]:
        """In the order in which they would be evicted."""
        return [int(page) for page in _oldest_first(self._parked, 0, len(self._parked))]

    def check(self) -> None:
        """Raises AssertionError where the two maps disagree, an idle page is not indexed, or a count is wrong."""
        assert {page: hash_ for hash_, page in self._page_of.items()} == self._hash_of
        assert len(self._page_of) == len(self._hash_of)
        idle = self.idle_pages()
        assert set(idle) <= self._hash_of.keys(), "an idle page is not in the index"
        assert len(idle) == self.num_idle
        assert int(np.count_nonzero(self._parked[idle] <= self._last_aged)) == self.num_aged


class _Queue:
    """Idle pages, the one first that was parked longest ago.

    Those found at once leave it in that order before it looks for more. Meanwhile some of them may be held again, and
    even parked again, with another number, which is how that is seen; and what is parked comes after all of them.
    """

    def __init__(self, parked: NDArray[np.int64]) -> None:
        self._parked = parked
        self._pages = np.empty(0, np.int32)
        self._numbers = np.empty(0, np.int64)
        """By which they were parked when they were found."""

    def take(self, count: int, after: int = 0) -> NDArray[np.int32]:
        """The first `count` of the pages that were parked after `after`. There must be as many."""
        taken = [np.empty(0, np.int32)]
        while count:
            if not len(self._pages):
                self._find(max(count, _AT_ONCE), after)
            pages, numbers = self._pages[:count], self._numbers[:count]
            self._pages, self._numbers = self._pages[count:], self._numbers[count:]
            still = (self._parked[pages] == numbers) & (numbers > after)
            taken.append(pages[still])
            count -= len(taken[-1])
            after = max(after, int(numbers[-1]))  # for those taken are still parked
        return np.concatenate(taken)

    def _find(self, most: int, after: int) -> None:
        self._pages = _oldest_first(self._parked, after, most)
        self._numbers = self._parked[self._pages]
        assert len(self._pages), "fewer pages are idle than are asked for"


def _oldest_first(parked: NDArray[np.int64], after: int, most: int) -> NDArray[np.int32]:
    """Pages parked after `after`, in that order; no more than `most`."""
    pages = np.flatnonzero(parked > after).astype(np.int32)
    if len(pages) > most:
        pages = pages[np.argpartition(parked[pages], most)[:most]]
    return pages[np.argsort(parked[pages])]
