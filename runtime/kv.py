"""Paged KV memory as the scheduler sees it: page tables that share what they have in common."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oi.runtime.copies import Copy
from oi.runtime.host_tier import HostTier
from oi.runtime.pages import PagePool
from oi.runtime.prefix import Chains, PrefixIndex, partial_hash, root_hash

__all__ = ["PageTable", "PagedKv", "Tail"]


class Tail(NamedTuple):
    """The end of what a preempted sequence had computed, where that was not a full page."""

    num_tokens: int
    """Of the sequence, up to its end."""
    hash: bytes


class PageTable:
    """The pages of one sequence, in order of position. Only `PagedKv` changes it.

    pages:   page i holds the tokens i · page_size …; each entry is one reference to the page.
    sealed:  the first `sealed` pages are full, computed, in the prefix index and never written again.
    chain:   hashes of the sequence's full pages, computed once (tokens never change, so it outlives `pages`).
    tail:    of a sequence that was preempted, if there is a host to keep it.
    """

    __slots__ = ("chain", "pages", "root", "sealed", "tail")

    def __init__(self, salt: str) -> None:
        self.root = root_hash(salt)
        self.pages: array[int] = array("i")
        self.chain: list[bytes] = []
        self.sealed = 0
        self.tail: Tail | None = None


class PagedKv:
    """Owns the page pool and the prefix index. Every page is free, held by tables, or idle in the index.

    A page is written by one sequence only, and only until it is sealed; it is shared only once sealed. What an idle
    page holds when it goes is kept by the host tier, where there is one.
    """

    def __init__(self, num_pages: int, page_size: int, tier: HostTier | None = None) -> None:
        self.page_size = page_size
        self.tier = tier
        self.steps = 0
        """Started so far; whoever starts them counts."""
        self._pool = PagePool(num_pages)
        self._index = PrefixIndex(num_pages)
        self._chains = Chains(page_size)
        self._more_evicted = num_pages // 1024
        """Than are needed: sequences that decode take pages one by one, and many cost little more than one."""
        self._used = np.zeros(num_pages, np.int64)
        """Steps that had been started when the page was let go: none after them uses it."""

    @property
    def num_pages(self) -> int:
        return self._pool.num_pages

    @property
    def num_idle(self) -> int:
        """Pages that hold a prefix and no sequence."""
        return self._index.num_idle

    @property
    def num_held(self) -> int:
        """Pages that sequences hold, each counted once."""
        return self.num_pages - self.num_available

    @property
    def num_available(self) -> int:
        """Pages that can be allocated: the free ones, and the idle ones at the cost of what they hold."""
        return self._pool.num_free + self._index.num_idle

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def match(self, table: PageTable, tokens: array[int]) -> NDArray[np.int32]:
        """The longest run of indexed pages that holds a prefix of `tokens`, at least the last token left out.

        (That one is computed in any case: its logits are wanted.) Nothing is held yet.
        """
        full = (len(tokens) - 1) // self.page_size
        self._chains.extend(table.root, table.chain, tokens, full)
        pages = self._index.find(table.chain[:full])
        return np.array(pages[: pages.index(-1)] if -1 in pages else pages, np.int32)

    def can_allocate(self, num_tokens: int, matched: NDArray[np.int32], spare: int) -> bool:
        """Whether a table that starts with `matched` can reach `num_tokens` and leave `spare` pages available."""
        idle_matched = self._index.count_idle(matched)
        return self.pages_for(num_tokens) - len(matched) + idle_matched + spare <= self.num_available

    def adopt(self, table: PageTable, matched: NDArray[np.int32]) -> int:
        """Start an empty table with pages just matched; returns the number of tokens they hold."""
        assert not table.pages, "a table adopts a prefix before it has any page"
        if not len(matched):
            return 0
        self._index.unpark(matched)
        self._pool.retain(matched)
        table.pages.frombytes(matched.tobytes())
        table.sealed = len(matched)
        return len(matched) * self.page_size

    def extend(self, table: PageTable, num_tokens: int) -> bool:
        """Give the table pages for its first `num_tokens`, evicting idle ones; False, and no change, where too few."""
        missing = self.pages_for(num_tokens) - len(table.pages)
        if missing > self.num_available:
            return False
        if missing > self._pool.num_free:
            self._evict(min(missing - self._pool.num_free + self._more_evicted, self._index.num_idle))
        table.pages.extend(self._pool.take(missing))
        return True

    def _evict(self, count: int) -> None:
        pages, hashes = self._index.evict(count)
        self._keep(pages, hashes)
        self._pool.free(pages.tolist())

    def _keep(self, pages: NDArray[np.int32], hashes: list[bytes]) -> None:
        """What these pages hold goes to the host, if there is one."""
        if self.tier is not None:
            self.tier.keep(hashes, pages.tolist(), self._used[pages].tolist())

    def seal(self, table: PageTable, tokens: array[int], computed: int) -> None:
        """Index the pages that the first `computed` tokens fill, so that others may share them.

        Where another sequence has sealed the same content first, the table takes that page and gives up its own:
        a sealed page of a table is always the page that the index names.
        """
        full = computed // self.page_size
        if full == table.sealed:
            return
        self._chains.extend(table.root, table.chain, tokens, full)
        known = self._index.find(table.chain[table.sealed : full])
        fresh = [i for i, page in enumerate(known, table.sealed) if page < 0]
        if len(fresh) < len(known):
            for i, page in enumerate(known, table.sealed):
                if page >= 0:
                    self._take_over(table, i, page)
        self._index.insert([table.chain[i] for i in fresh], [table.pages[i] for i in fresh])
        table.sealed = full

    def _take_over(self, table: PageTable, i: int, known: int) -> None:
        """Page i of the table is from now on the page `known`, which holds the same."""
        theirs, mine = np.array([[known], [table.pages[i]]], np.int32)
        self._index.unpark(theirs)
        self._pool.retain(theirs)
        self._let_go(mine, sealed=False)
        table.pages[i] = known

    def release(self, table: PageTable) -> None:
        """The sequence gives up its pages; sealed ones stay in the index until evicted."""
        last_first = np.array(table.pages, np.int32)[::-1]
        unsealed = len(last_first) - table.sealed
        self._let_go(last_first[:unsealed], sealed=False)
        self._let_go(last_first[unsealed:], sealed=True)
        del table.pages[:]
        table.sealed = 0

    def _let_go(self, pages: NDArray[np.int32], *, sealed: bool) -> None:
        if not len(pages):
            return
        idle = self._pool.release(pages)
        self._used[idle] = self.steps
        if sealed:
            self._index.park(idle)
        else:
            self._pool.free(idle.tolist())

    def put_off(self, table: PageTable, tokens: array[int], computed: int) -> None:
        """The sequence gives up its pages and will be back: nothing of what is computed, and sealed, is lost.

        Only with a host tier, which keeps the page that is not full.
        """
        assert self.tier is not None
        full, rest = divmod(computed, self.page_size)
        if rest:
            parent = table.chain[full - 1] if full else table.root
            table.tail = Tail(computed, partial_hash(parent, tokens[full * self.page_size : computed]))
            self.tier.keep([table.tail.hash], [table.pages[full]], [self.steps])
        self.release(table)

    def match_host(self, table: PageTable, tokens: array[int], num_matched: int) -> list[bytes]:
        """What the host holds behind the pages that `match` found on the device, in order."""
        assert self.tier is not None
        wanted = table.chain[num_matched : (len(tokens) - 1) // self.page_size]
        found = wanted[: self.tier.slots.count(wanted)]
        tail = table.tail
        if tail is not None and num_matched + len(found) == tail.num_tokens // self.page_size:
            found += [tail.hash] if tail.hash in self.tier.slots else []
        return found

    def restore(self, table: PageTable, hashes: list[bytes], num_tokens: int) -> tuple[Copy, int]:
        """`extend` a table that has adopted what it could, and have what `match_host` found brought behind that.

        Returns the copy, and how many tokens the table holds when it has landed; there must be pages enough, and no
        other copy of that content in flight.
        """
        assert self.tier is not None
        slots = self.tier.slots.read(hashes)  # before pages go, to which the host may give slots
        enough = self.extend(table, num_tokens)
        assert enough, "whoever is admitted has pages for all its tokens"
        end = table.sealed + len(hashes)
        pages = np.empty(len(hashes), np.int32)
        pages[np.argsort(slots)] = sorted(table.pages[table.sealed : end])  # side by side as the slots are: one copy
        table.pages[table.sealed : end] = array("i", pages.tobytes())
        copy = self.tier.restore(hashes, pages.tolist(), slots, int(self._used[pages].max()))
        is_tail = table.tail is not None and table.tail.hash == hashes[-1]
        return copy, table.tail.num_tokens if is_tail and table.tail is not None else end * self.page_size

    def save_ahead(self) -> None:
        """Have what goes next from the device saved before it must go (host_tier.py says how much)."""
        assert self.tier is not None
        lacking = self.tier.wanted_ahead - self._pool.num_free - self._index.num_aged
        if lacking > 0:
            left = self._index.num_idle - self._index.num_aged
            self._keep(*self._index.age(min(lacking, left, self.tier.slots.room)))

    def check(self, tables: Iterable[PageTable]) -> None:
        """Prove that pages are conserved, in both tiers, `tables` being all that exist. Raises AssertionError."""
        tables = list(tables)
        if self.tier is not None:
            self.tier.check()
        self._index.check()
        self._pool.check(set(self._index.idle_pages()))
        counted = Counter(page for table in tables for page in table.pages)
        for page in range(self.num_pages):
            assert self._pool.references(page) == counted[page], f"page {page}: references and tables disagree"
        writable = [page for table in tables for page in table.pages[table.sealed :]]
        assert all(counted[page] == 1 and not self._index.holds(page) for page in writable), "a shared page is writable"
        for table in tables:
            assert self._index.find(table.chain[: table.sealed]) == list(table.pages[: table.sealed])
