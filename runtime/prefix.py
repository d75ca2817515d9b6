"""The prefix index: which page holds which full page of tokens, after which prefix.

A page's identity is a hash chained over all tokens before it:

    hash[-1] = H(salt)        hash[i] = H(hash[i-1] · tokens of page i as int32)

so equal hashes mean equal tokens at equal positions under the same salt (H is blake2b with 128 bits: a
collision needs about 2^64 pages, by accident or by design).
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from hashlib import blake2b

__all__ = ["PrefixIndex", "extend_chain", "partial_hash", "root_hash"]


def root_hash(salt: str) -> bytes:
    """The chain's start; sequences of different salts share nothing."""
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16, person=b"oi.prefix.root").digest()


def extend_chain(root: bytes, chain: list[bytes], tokens: array[int], page_size: int, num_pages: int) -> None:
    """Append hashes to `chain` until it covers the first `num_pages` full pages of `tokens`."""
    parent = chain[-1] if chain else root
    for page in range(len(chain), num_pages):
        content = tokens[page * page_size : (page + 1) * page_size].tobytes()
        parent = blake2b(parent + content, digest_size=16).digest()
        chain.append(parent)


def partial_hash(parent: bytes, tokens: array[int]) -> bytes:
    """Of a page that is not full, behind the page (or root) whose hash is `parent`."""
    return blake2b(parent + tokens.tobytes(), digest_size=16, person=b"oi.prefix.part").digest()


class PrefixIndex:
    """Owns the map hash ↔ page and the LRU order of idle pages (indexed, held by no sequence).

    Pages of one sequence must be parked last page first. Then a page always stands before its parents in the
    LRU order (a sequence that holds a page holds its parents too, and parks them after it), so evicting in
    that order never cuts a chain in the middle.

    The pages that stand first in that order may be aged, a mark that they bear until they are held again or evicted.
    """

    def __init__(self) -> None:
        self._page_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self._aged: OrderedDict[int, None] = OrderedDict()
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Those not aged: they go after all that are."""

    @property
    def num_idle(self) -> int:
        return len(self._idle) + len(self._aged)

    @property
    def num_aged(self) -> int:
        return len(self._aged)

    def find(self, hash_: bytes) -> int | None:
        return self._page_of.get(hash_)

    def holds(self, page: int) -> bool:
        return page in self._hash_of

    def is_idle(self, page: int) -> bool:
        return page in self._idle or page in self._aged

    def insert(self, hash_: bytes, page: int) -> None:
        """`page`, held by a sequence, has the content of `hash_`, which no other page has."""
        assert hash_ not in self._page_of, "a hash has one page"
        assert page not in self._hash_of, "a page has one hash"
        self._page_of[hash_] = page
        self._hash_of[page] = hash_

    def park(self, page: int) -> None:
        """The last sequence that held `page` let it go: it may be evicted, after those parked before it."""
        self._idle[page] = None

    def unpark(self, page: int) -> None:
        """A sequence holds `page` again. Nothing happens where it was not idle."""
        self._idle.pop(page, None)
        self._aged.pop(page, None)

    def evict(self) -> tuple[int, bytes]:
        """Forget the idle page that was parked longest ago, and its hash. Raises KeyError where none is idle."""
        page, _ = (self._aged or self._idle).popitem(last=False)
        hash_ = self._hash_of.pop(page)
        del self._page_of[hash_]
        return page, hash_

    def age(self) -> tuple[int, bytes] | None:
        """The page that would be evicted first of those not aged is aged now. None where all idle pages are."""
        if not self._idle:
            return None
        page, _ = self._idle.popitem(last=False)
        self._aged[page] = None
        return page, self._hash_of[page]

    def idle_pages(self) -> list[int]:
        """In the order in which they would be evicted."""
        return [*self._aged, *self._idle]

    def check(self) -> None:
        """Raises AssertionError where the two maps disagree or an idle page is not indexed."""
        assert {page: hash_ for hash_, page in self._page_of.items()} == self._hash_of
        assert len(self._page_of) == len(self._hash_of)
        assert self._idle.keys() | self._aged.keys() <= self._hash_of.keys(), "an idle page is not in the index"
        assert not self._idle.keys() & self._aged.keys(), "a page is idle twice"
