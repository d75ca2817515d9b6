"""Paged KV memory over random histories, against a model that remembers what each page truly holds."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from oi.runtime.kv import PagedKv, PageTable
from oi.runtime.pages import PagePool

PAGES, PAGE_SIZE = 9, 2
Content = tuple[str, tuple[int, ...]]


class _Holder:
    """A sequence as far as pages matter."""

    def __init__(self, salt: str, tokens: list[int]) -> None:
        self.salt = salt
        self.tokens = array("i", tokens)
        self.table = PageTable(salt)
        self.computed = 0

    def content(self, page: int) -> Content:
        """What page i of the table must hold: everything up to its end, under the salt."""
        return self.salt, tuple(self.tokens[: (page + 1) * PAGE_SIZE])


class KvHistories(RuleBasedStateMachine):
    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.kv = PagedKv(PAGES, PAGE_SIZE)
        self.active: list[_Holder] = []
        self.truth: dict[int, Content] = {}
        """Sealed page → what was computed into it."""

    @rule(
        target=holders,
        salt=st.sampled_from(["", "a"]),
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=PAGES * PAGE_SIZE),
    )
    def arrive(self, salt: str, tokens: list[int]) -> _Holder:
        return _Holder(salt, tokens)

    @rule(holder=holders, spare=st.integers(0, 3))
    def admit(self, holder: _Holder, spare: int) -> None:
        if holder in self.active:
            return
        matched = self.kv.match(holder.table, holder.tokens)
        assert len(matched) * PAGE_SIZE < len(holder.tokens), "the last token is always computed"
        assert [self.truth[page] for page in matched] == [holder.content(i) for i in range(len(matched))]
        available = self.kv.num_available
        if self.kv.can_allocate(len(holder.tokens), matched, spare):
            holder.computed = self.kv.adopt(holder.table, matched)
            assert self.kv.extend(holder.table, len(holder.tokens))
            assert self.kv.num_available >= spare
            self.active.append(holder)
        else:
            assert self.kv.num_available == available
            assert available < self.kv.pages_for(len(holder.tokens)) + spare

    @rule(holder=holders, count=st.integers(1, 5))
    def compute(self, holder: _Holder, count: int) -> None:
        if holder not in self.active:
            return
        first = holder.computed // PAGE_SIZE
        holder.computed = min(len(holder.tokens), holder.computed + count)
        mine = list(holder.table.pages)
        self.kv.seal(holder.table, holder.tokens, holder.computed)
        for i in range(first, holder.computed // PAGE_SIZE):
            if holder.table.pages[i] == mine[i]:
                self.truth[mine[i]] = holder.content(i)

    @rule(holder=holders, token=st.integers(0, 1))
    def generate(self, holder: _Holder, token: int) -> None:
        if holder not in self.active or holder.computed < len(holder.tokens):
            return
        available, before = self.kv.num_available, list(holder.table.pages)
        if self.kv.extend(holder.table, len(holder.tokens) + 1):
            holder.tokens.append(token)
            assert len(holder.table.pages) == self.kv.pages_for(len(holder.tokens))
        else:
            assert available == 0
            assert list(holder.table.pages) == before

    @rule(holder=holders)
    def preempt(self, holder: _Holder) -> None:
        if holder in self.active:
            self.active.remove(holder)
            self.kv.release(holder.table)

    @rule(holder=consumes(holders))
    def leave(self, holder: _Holder) -> None:
        self.preempt(holder)

    @invariant()
    def pages_are_conserved_and_hold_what_they_should(self) -> None:
        self.kv.check(holder.table for holder in self.active)
        assert self.kv.num_held == len({page for holder in self.active for page in holder.table.pages})
        for holder in self.active:
            assert holder.table.sealed == holder.computed // PAGE_SIZE
            for i in range(holder.table.sealed):
                assert self.truth[holder.table.pages[i]] == holder.content(i)

    def teardown(self) -> None:
        for holder in self.active:
            self.kv.release(holder.table)
        self.kv.check([])
        assert self.kv.num_available == PAGES


KvHistories.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestKvHistories = KvHistories.TestCase


def _computed(kv: PagedKv, tokens: list[int], salt: str = "") -> PageTable:
    """A table whose tokens were all computed and sealed."""
    table, stored = PageTable(salt), array("i", tokens)
    kv.adopt(table, kv.match(table, stored))
    assert kv.extend(table, len(stored))
    kv.seal(table, stored, len(stored))
    return table


def _matched(kv: PagedKv, tokens: list[int], salt: str = "") -> int:
    return len(kv.match(PageTable(salt), array("i", tokens)))


def test_a_prompt_that_is_cached_in_full_leaves_its_last_page_to_compute() -> None:
    kv = PagedKv(8, 2)
    kv.release(_computed(kv, [1, 2, 3, 4]))
    assert _matched(kv, [1, 2, 3, 4]) == 1
    assert _matched(kv, [1, 2, 3, 4, 5]) == 2


def test_salts_share_nothing() -> None:
    kv = PagedKv(8, 2)
    kv.release(_computed(kv, [1, 2, 3], salt="key"))
    assert _matched(kv, [1, 2, 3]) == 0
    assert _matched(kv, [1, 2, 3], salt="key") == 1


def test_equal_pages_behind_different_prefixes_are_different() -> None:
    kv = PagedKv(8, 2)
    kv.release(_computed(kv, [1, 2, 7, 7, 0]))
    assert _matched(kv, [3, 4, 7, 7, 0]) == 0


def test_eviction_takes_the_least_recently_used_and_leaves_before_parents() -> None:
    kv = PagedKv(6, 2)
    old, new = [1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6]
    kv.release(_computed(kv, old))
    kv.release(_computed(kv, new))
    kv.release(_computed(kv, old))  # used again: `new` is now the older one
    taken = PageTable("")
    for evicted in range(1, 7):
        assert kv.extend(taken, 2 * evicted)
        assert _matched(kv, [*new, 0]) == max(0, 3 - evicted)
        assert _matched(kv, [*old, 0]) == min(3, 6 - evicted)
    assert not kv.extend(taken, 2 * 7)


def test_sequences_that_compute_the_same_prefix_side_by_side_end_with_one_copy() -> None:
    kv = PagedKv(8, 2)
    tokens = array("i", [1, 2, 3, 4, 5])
    tables = [PageTable(""), PageTable("")]
    for table in tables:
        assert kv.extend(table, 5)
    assert kv.num_held == 6
    for table in tables:
        kv.seal(table, tokens, 5)
    assert tables[0].pages[:2] == tables[1].pages[:2]
    assert kv.num_held == 4
    kv.check(tables)


def test_the_check_sees_a_lost_page_and_a_page_released_twice() -> None:
    kv = PagedKv(4, 2)
    table = _computed(kv, [1, 2, 3])
    with pytest.raises(AssertionError):
        kv.check([])
    table.pages.append(table.pages[0])
    with pytest.raises(AssertionError):
        kv.check([table])
    pool = PagePool(1)
    pages = np.array(pool.take(1), np.int32)
    pool.release(pages)
    with pytest.raises(AssertionError):
        pool.release(pages)
