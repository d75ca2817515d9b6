"""Paged KV memory as the scheduler sees it: page tables that share what they have in common."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

from oi.runtime.pages import PagePool
from oi.runtime.prefix import PrefixIndex, extend_chain, root_hash

__all__ = ["PageTable", "PagedKv"]


class PageTable:
    """The pages of one sequence, in order of position. Only `PagedKv` changes it.

    pages:   page i holds the tokens i · page_size …; each entry is one reference to the page.
    sealed:  the first `sealed` pages are full, computed, in the prefix index and never written again.
    chain:   hashes of the sequence's full pages, computed once (tokens never change, so it outlives `pages`).
    """

    __slots__ = ("chain", "pages", "root", "sealed")

    def __init__(self, salt: str) -> None:
        self.root = root_hash(salt)
        self.pages: array[int] = array("i")
        self.chain: list[bytes] = []
        self.sealed = 0


class PagedKv:
    """Owns the page pool and the prefix index. Every page is free, held by tables, or idle in the index.

    A page is written by one sequence only, and only until it is sealed; it is shared only once sealed.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.page_size = page_size
        self._pool = PagePool(num_pages)
        self._index = PrefixIndex()

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

    def match(self, table: PageTable, tokens: array[int]) -> list[int]:
        """The longest run of indexed pages that holds a prefix of `tokens`, at least the last token left out.

        (That one is computed in any case: its logits are wanted.) Nothing is held yet.
        """
        extend_chain(table.root, table.chain, tokens, self.page_size, (len(tokens) - 1) // self.page_size)
        pages: list[int] = []
        for hash_ in table.chain[: (len(tokens) - 1) // self.page_size]:
            page = self._index.find(hash_)
            if page is None:
                break
            pages.append(page)
        return pages

    def can_allocate(self, num_tokens: int, matched: list[int], spare: int) -> bool:
        """Whether a table that starts with `matched` can reach `num_tokens` and leave `spare` pages available."""
        idle_matched = sum(map(self._index.is_idle, matched))
        return self.pages_for(num_tokens) - len(matched) + idle_matched + spare <= self.num_available

    def adopt(self, table: PageTable, matched: list[int]) -> int:
        """Start an empty table with pages just matched; returns the number of tokens they hold."""
        assert not table.pages, "a table adopts a prefix before it has any page"
        for page in matched:
            self._index.unpark(page)
            self._pool.retain(page)
        table.pages.extend(matched)
        table.sealed = len(matched)
        return len(matched) * self.page_size

    def extend(self, table: PageTable, num_tokens: int) -> bool:
        """Give the table pages for its first `num_tokens`, evicting idle ones; False, and no change, where too few."""
        missing = self.pages_for(num_tokens) - len(table.pages)
        if missing > self.num_available:
            return False
        for _ in range(missing):
            if not self._pool.num_free:
                self._pool.free(self._index.evict())
            table.pages.append(self._pool.take())
        return True

    def seal(self, table: PageTable, tokens: array[int], computed: int) -> None:
        """Index the pages that the first `computed` tokens fill, so that others may share them.

        Where another sequence has sealed the same content first, the table takes that page and gives up its own:
        a sealed page of a table is always the page that the index names.
        """
        full = computed // self.page_size
        if full == table.sealed:
            return
        extend_chain(table.root, table.chain, tokens, self.page_size, full)
        for i in range(table.sealed, full):
            mine, known = table.pages[i], self._index.find(table.chain[i])
            if known is None:
                self._index.insert(table.chain[i], mine)
            else:
                self._index.unpark(known)
                self._pool.retain(known)
                table.pages[i] = known
                self._let_go(mine)
        table.sealed = full

    def release(self, table: PageTable) -> None:
        """The sequence gives up its pages; sealed ones stay in the index until evicted."""
        for page in reversed(table.pages):
            self._let_go(page)
        del table.pages[:]
        table.sealed = 0

    def _let_go(self, page: int) -> None:
        if self._pool.release(page):
            return
        if self._index.holds(page):
            self._index.park(page)
        else:
            self._pool.free(page)

    def check(self, tables: Iterable[PageTable]) -> None:
        """Prove that pages are conserved, `tables` being all that exist. Raises AssertionError."""
        tables = list(tables)
        self._index.check()
        self._pool.check(set(self._index.idle_pages()))
        counted = Counter(page for table in tables for page in table.pages)
        for page in range(self.num_pages):
            assert self._pool.references(page) == counted[page], f"page {page}: references and tables disagree"
        writable = [page for table in tables for page in table.pages[table.sealed :]]
        assert all(counted[page] == 1 and not self._index.holds(page) for page in writable), "a shared page is writable"
        for table in tables:
            assert [self._index.find(h) for h in table.chain[: table.sealed]] == list(table.pages[: table.sealed])
