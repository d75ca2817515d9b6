"""The host tier: what leaves the device's pages is kept in host memory, and a copy brings it back.

Pure policy: it says which copies are to be started, and is told which have landed.

**When a page is saved.** Not when it is sealed: then the host would hold what the device holds, and the smaller of the
two tiers would be worth nothing. Nor when it must go: then its successor would wait. The idle pages that go next are
saved ahead, as many as `_AHEAD` of the slots, so that in general the page that goes has long been saved. Where many go
at once, those that are left are saved as they go. Prefixes that are wanted back have the bus first: while one is
restored, pages are saved ahead only when half of what should be ahead is gone.

**When it comes back.** A sequence is admitted with the pages that it needs, those that the host holds are copied into
its own, and when they have landed it runs. What is already being copied, either way, is waited for, not copied twice.
A copy that fails takes its content out of the tier; what it was to bring is computed.

**In which order.** Copies run beside the steps and beside each other, and land in any order. No sequence waits for a
page because a copy reads it: a page that is given up may be taken at once, and whoever writes it next, comes later:

* A copy begins when the steps that use its pages are done. A page that nobody holds was used last by a step that was
  started before it was let go (`Copy.beside`).
* A step that writes a page begins after the copy in flight that touches that page, if there is one (`touching`).
* So does a copy: a restore into a page whose content is being saved, or into one that a restore nobody waits for any
  more is still writing.
* A step that reads a restored page is started when the restore has landed: before that its sequence does not run.
* A slot has one copy in flight at most, and meanwhile its content is neither restored nor given up: what is being
  saved cannot be restored, and what is being restored cannot be overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oi.runtime.copies import Copy
from oi.runtime.host_slots import HostSlots

__all__ = ["HostTier"]

_AHEAD = 0.25
"""Share of the slots: more of what is saved ahead is on both tiers, less and a long prompt finds too little of it."""


class _Save(NamedTuple):
    hash: bytes
    page: int
    slot: int
    used: int
    """Steps that were started when the page was let go."""


class HostTier:
    """Which content the host holds, and the copies in flight. Content is named by its prefix hash (prefix.py)."""

    def __init__(self) -> None:
        self.slots = HostSlots()
        self._saves: list[_Save] = []
        self._restores: list[tuple[Copy, list[bytes], int]] = []
        self._in_flight: dict[Copy, list[bytes]] = {}
        self._last: dict[int, Copy] = {}
        """Page → of the copies in flight that touch it, the one that was ordered last, and begins after the others."""

    @property
    def waits(self) -> bool:
        """Whether a copy is in flight."""
        return bool(self._in_flight)

    @property
    def wanted_ahead(self) -> int:
        """Pages that should be ready to go: free, or saved ahead."""
        ahead = int(self.slots.num_slots * _AHEAD)
        restoring = bool(self._restores) or any(not copy.to_host for copy in self._in_flight)
        return ahead // 2 if restoring else ahead

    def keep(self, hashes: Sequence[bytes], pages: Sequence[int], used: Sequence[int]) -> None:
        """These pages go next, or now: their content is saved, unless it is here or there is no room for it.

        `used`: how many steps had been started when each was let go.
        """
        saved = self.slots.leave(hashes)[: self.slots.room]
        by_page = sorted(saved, key=pages.__getitem__)  # pages side by side get slots side by side: one copy
        slot_of = dict(zip(by_page, self.slots.reserve([hashes[i] for i in by_page]), strict=True))
        self._saves += [_Save(hashes[i], pages[i], slot_of[i], used[i]) for i in saved]

    def restore(self, hashes: list[bytes], pages: list[int], slots: list[int], used: int) -> Copy:
        """Have slots that are `HostSlots.read` copied into pages; `used` as in `keep`, of the page used last."""
        copy = Copy(to_host=False, moves=list(zip(pages, slots, strict=True)))
        self._restores.append((copy, hashes, used))
        return copy

    def orders(self, started: int) -> list[tuple[Copy, set[Copy]]]:
        """Copies to be started now, in this order, each with those that it begins after.

        `started`: steps started so far.
        """
        found: list[tuple[Copy, set[Copy]]] = []
        if self._saves:
            beside = started - max(save.used for save in self._saves)
            save = Copy(True, [(save.page, save.slot) for save in self._saves], beside)
            found.append(self._order(save, [save.hash for save in self._saves]))
            self._saves = []
        for copy, hashes, used in self._restores:
            copy.beside = started - used
            found.append(self._order(copy, hashes))
        self._restores = []
        return found

    def _order(self, copy: Copy, hashes: list[bytes]) -> tuple[Copy, set[Copy]]:
        after = self.touching(page for page, _ in copy.moves)
        self._in_flight[copy] = hashes
        self._last.update((page, copy) for page, _ in copy.moves)
        return copy, after

    def touching(self, pages: Iterable[int]) -> set[Copy]:
        """The copies in flight that whoever writes these pages must come after."""
        return {self._last[page] for page in pages if page in self._last} if self._last else set()

    def landed(self, copy: Copy, ok: bool, on_device: bool) -> None:
        """`on_device`: a sequence has what was restored."""
        hashes = self._in_flight.pop(copy)
        for page, _ in copy.moves:
            if self._last.get(page) is copy:
                del self._last[page]
        if not ok:
            self.slots.drop(hashes)
            return
        # A page goes before its parents. Saved pages came in the order in which they go, restored ones parents first.
        self.slots.settle(hashes if copy.to_host or on_device else hashes[::-1], on_device)

    def check(self) -> None:
        """Raises AssertionError where slots are not conserved, or a slot is busy without a copy."""
        ordered = [save.hash for save in self._saves] + [h for _, hashes, _ in self._restores for h in hashes]
        flying = [hash_ for hashes in self._in_flight.values() for hash_ in hashes]
        assert len(ordered) + len(flying) == len({*ordered, *flying}), "content has two copies in flight"
        self.slots.check({*ordered, *flying})
        assert set(self._last.values()) <= self._in_flight.keys(), "a page waits for a copy that is not in flight"
