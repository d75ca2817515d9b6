"""Which slot of the host's memory holds which page's content, and which content goes when room is needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

__all__ = ["HostSlots"]


class HostSlots:
    """Owns the slots. Each is free, kept (it holds a page's content), or busy (a copy in flight reads or writes it).

    Kept content goes in this order: first what is on the device as well, so that the tiers together hold as much as
    they can; then what left the device longest ago. As the device lets go what was used longest ago, that is the
    order of use over both tiers.
    """

    def __init__(self) -> None:
        self._free: list[int] = []
        self._kept: OrderedDict[bytes, int] = OrderedDict()
        """What left the device, longest ago first."""
        self._doubled: dict[bytes, int] = {}
        """Kept, and on the device as well: goes before all that is not, what came back last first."""
        self._busy: dict[bytes, int] = {}

    @property
    def num_slots(self) -> int:
        return len(self._free) + self.num_used

    @property
    def num_used(self) -> int:
        return len(self._kept) + len(self._doubled) + len(self._busy)

    @property
    def room(self) -> int:
        """How many slots `reserve` finds."""
        return len(self._free) + len(self._kept) + len(self._doubled)

    def __contains__(self, hash_: bytes) -> bool:
        return hash_ in self._kept or hash_ in self._doubled or hash_ in self._busy

    def count(self, hashes: Sequence[bytes]) -> int:
        """How many of these are here, up to the first that is not."""
        kept, doubled, busy = self._kept, self._doubled, self._busy
        missing = (i for i, h in enumerate(hashes) if h not in kept and h not in doubled and h not in busy)
        return next(missing, len(hashes))

    def any_busy(self, hashes: Sequence[bytes]) -> bool:
        return not self._busy.keys().isdisjoint(hashes)

    def grow(self, num_slots: int) -> None:
        """More slots, which are free."""
        self._free.extend(range(num_slots - 1, self.num_slots - 1, -1))

    def reserve(self, hashes: Sequence[bytes]) -> list[int]:
        """Slots to copy these contents into, rising, busy from now on. Raises KeyError where there is no `room`."""
        states = (self._kept, self._doubled, self._busy)
        assert all(state.keys().isdisjoint(hashes) for state in states), "content has one slot"
        slots = sorted(self._take() for _ in hashes)
        self._busy.update(zip(hashes, slots, strict=True))
        return slots

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        return (self._doubled.popitem() if self._doubled else self._kept.popitem(last=False))[1]

    def read(self, hashes: Sequence[bytes]) -> list[int]:
        """The slots of kept content, busy from now on."""
        slots = self._pop_kept(hashes)
        self._busy.update(zip(hashes, slots, strict=True))
        return slots

    def settle(self, hashes: Sequence[bytes], on_device: bool) -> None:
        """No copy of these is in flight any more: they are kept, in the order in which they go.

        Where they are on the device as well, the last of them goes first.
        """
        slots = map(self._busy.pop, hashes)
        (self._doubled if on_device else self._kept).update(zip(hashes, slots, strict=True))

    def drop(self, hashes: Sequence[bytes]) -> None:
        """Of busy slots: their copy failed, the content is not to be trusted."""
        self._free.extend(map(self._busy.pop, hashes))

    def leave(self, hashes: Sequence[bytes]) -> list[int]:
        """The device lets the pages of these go: those that are here are the last to go. Which of them are not here."""
        kept, doubled, busy = self._kept, self._doubled, self._busy
        here = [h for h in hashes if h in kept or h in doubled]
        kept.update(zip(here, self._pop_kept(here), strict=True))
        return [i for i, h in enumerate(hashes) if h not in kept and h not in busy] if len(here) < len(hashes) else []

    def _pop_kept(self, hashes: Sequence[bytes]) -> list[int]:
        kept, doubled = self._kept, self._doubled
        return [kept.pop(h) if h in kept else doubled.pop(h) for h in hashes]

    def check(self, busy: set[bytes]) -> None:
        """Every slot is in one state, and `busy` are those with a copy in flight. Raises AssertionError."""
        states = (self._kept, self._doubled, self._busy)
        slots = [*self._free, *(slot for state in states for slot in state.values())]
        assert sorted(slots) == list(range(self.num_slots)), "a slot is lost or counted twice"
        assert len({h for state in states for h in state}) == self.num_used, "content has two slots"
        assert self._busy.keys() == busy, "busy slots and copies in flight disagree"
