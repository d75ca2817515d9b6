"""Between the host tier's policy and the device that copies for it: orders go out, landings come in, both counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from oi.runtime.batch import Scheduled
from oi.runtime.copies import Copies
from oi.runtime.host_tier import HostTier
from oi.runtime.scheduler import Scheduler

__all__ = ["Exchange", "Traffic"]


@dataclass
class Traffic:
    """One way; of copies that landed."""

    pages: int = 0
    seconds: float = 0.0


class Exchange:
    """What the engine does around each step's schedule where there is a host tier."""

    def __init__(self, copies: Copies) -> None:
        self.copies = copies
        self.tier = HostTier()
        self.saved = Traffic()
        self.restored = Traffic()

    def take(self, scheduler: Scheduler) -> None:
        """Tell what has landed, and what room there is."""
        for copy, ok, seconds in self.copies.landed():
            self.tier.landed(copy, ok, on_device=scheduler.restored(copy, ok))
            traffic = self.saved if copy.to_host else self.restored
            traffic.pages += len(copy.moves) if ok else 0
            traffic.seconds += seconds
        self.tier.slots.grow(self.copies.num_slots)

    def send(self, scheduler: Scheduler, schedule: list[Scheduled]) -> None:
        """Start the copies that were ordered; the schedule's step begins after those that it must come after."""
        for copy, after in self.tier.orders(scheduler.counters.steps):
            self.copies.start(copy, after)
        if held := self.tier.touching(_written(schedule, scheduler.kv.page_size)):
            self.copies.hold_steps(held)

    def stats(self, hits: int) -> dict[str, Any]:
        """The host's fields of messages.Stats."""
        slots, size = self.tier.slots, self.copies.page_bytes
        return {
            "host_pages_used": slots.num_used,
            "host_pages_total": slots.num_slots,
            "host_hits": hits,
            "saved_bytes": self.saved.pages * size,
            "restored_bytes": self.restored.pages * size,
            "save_seconds": self.saved.seconds,
            "restore_seconds": self.restored.seconds,
        }


def _written(schedule: list[Scheduled], page_size: int) -> Iterator[int]:
    """The pages that a step writes."""
    for sequence, num_tokens, _ in schedule:
        end = sequence.computed + num_tokens
        yield from sequence.table.pages[sequence.computed // page_size : -(-end // page_size)]
