"""Which slot of the host's memory holds which page's content, and which content goes when room is needed."""

from __future__ import annotations

from collections import OrderedDict

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
        self._busy: dict[bytes, int] = {}

    @property
    def num_slots(self) -> int:
        return len(self._free) + self.num_used

    @property
    def num_used(self) -> int:
        return len(self._kept) + len(self._busy)

    @property
    def room(self) -> int:
        """How often `reserve` finds a slot."""
        return len(self._free) + len(self._kept)

    def __contains__(self, hash_: bytes) -> bool:
        return hash_ in self._kept or hash_ in self._busy

    def is_busy(self, hash_: bytes) -> bool:
        return hash_ in self._busy

    def grow(self, num_slots: int) -> None:
        """More slots, which are free."""
        self._free.extend(range(num_slots - 1, self.num_slots - 1, -1))

    def reserve(self, hash_: bytes) -> int | None:
        """A slot to copy this content into, busy from now on; None where all slots are."""
        assert hash_ not in self, "content has one slot"
        if self._free:
            slot = self._free.pop()
        elif self._kept:
            slot = self._kept.popitem(last=False)[1]
        else:
            return None
        self._busy[hash_] = slot
        return slot

    def read(self, hash_: bytes) -> int:
        """The slot of kept content, busy from now on."""
        slot = self._busy[hash_] = self._kept.pop(hash_)
        return slot

    def settle(self, hash_: bytes, on_device: bool) -> None:
        """No copy is in flight any more: the content is kept."""
        self._kept[hash_] = self._busy.pop(hash_)
        if on_device:
            self._kept.move_to_end(hash_, last=False)

    def drop(self, hash_: bytes) -> None:
        """Of a busy slot: its copy failed, the content is not to be trusted."""
        self._free.append(self._busy.pop(hash_))

    def leave(self, hash_: bytes) -> bool:
        """The device lets the page of this content go: if it is here, which is returned, it is the last to go."""
        if hash_ in self._kept:
            self._kept.move_to_end(hash_)
            return True
        return hash_ in self._busy

    def check(self, busy: set[bytes]) -> None:
        """Every slot is in one state, and `busy` are those with a copy in flight. Raises AssertionError."""
        slots = [*self._free, *self._kept.values(), *self._busy.values()]
        assert sorted(slots) == list(range(self.num_slots)), "a slot is lost or counted twice"
        assert not self._kept.keys() & self._busy.keys(), "content has two slots"
        assert self._busy.keys() == busy, "busy slots and copies in flight disagree"
