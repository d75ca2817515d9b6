"""What the host tier asks of a device: whole pages copied to the host and back, beside the steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["Copies", "Copy", "Landed"]


@dataclass(eq=False, slots=True)
class Copy:
    """Pages that are copied one way, between the device's pages and the host's slots of the same size."""

    to_host: bool
    moves: list[tuple[int, int]]
    """(page, slot)"""
    beside: int = 0
    """It need not wait for the steps started last, so many of them: they touch none of its pages."""


class Landed(NamedTuple):
    copy: Copy
    ok: bool
    """If not, what it was to write is worth nothing."""
    seconds: float
    """From its first byte to its last."""


class Copies(Protocol):
    """Owns the host's slots and the copies in flight. Copies land in any order, and are told of once.

    Slots are numbered from 0. Their memory may be got ready in the background; no copy names one that is not.
    """

    @property
    def page_bytes(self) -> int: ...

    @property
    def num_slots(self) -> int:
        """That are ready. It only grows."""

    def start(self, copy: Copy, after: Iterable[Copy]) -> None:
        """Begin as soon as the steps that it must wait for are done, and the copies `after`, which are in flight."""

    def hold_steps(self, copies: Iterable[Copy]) -> None:
        """Steps started from now on begin after these copies, which are in flight."""

    def landed(self) -> list[Landed]:
        """Those that have landed since this was asked last. Does not wait."""

    def wait(self) -> None:
        """Until something has landed. There must be a copy in flight."""

    def fileno(self) -> int:
        """A descriptor that is readable while `landed` has something to tell."""
