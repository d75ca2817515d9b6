"""Copies of a device that means ill: they begin as soon as they may or as late as they must, land in any order, page by
page, are told of late, and some fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from oi.runtime.copies import Copy, Landed

if TYPE_CHECKING:
    from tests.runtime.fake_runner import FakeRunner

_GARBAGE = np.uint64(0xBAD)


@dataclass(eq=False)
class _Flying:
    copy: Copy
    steps: int
    """Computed before it may begin."""
    after: list[_Flying]
    left: list[tuple[int, int]]
    fails: bool

    @property
    def done(self) -> bool:
        return not self.left


class FakeCopies:
    """See copies.Copies. `num_slots` become ready one by one, as they are asked for."""

    def __init__(self, num_slots: int, rng: Random, failures: float = 0.0, ready: int | None = None) -> None:
        self.failed: list[Copy] = []
        self.saved = self.restored = 0
        """Pages."""
        self._most = num_slots
        self._ready = num_slots if ready is None else ready
        self._rng = rng
        self.failures = failures
        self._flying: dict[Copy, _Flying] = {}
        self._held: list[_Flying] = []

    def attach(self, runner: FakeRunner) -> None:
        self._runner = runner
        self._page_size = runner.geometry.page_size
        self._slots = np.full(self._most * self._page_size, 0xDEAD, np.uint64)

    page_bytes = 10

    @property
    def num_slots(self) -> int:
        self._ready = min(self._most, self._ready + self._rng.randint(0, 1))
        return self._ready

    def start(self, copy: Copy, after: Iterable[Copy]) -> None:
        assert copy.moves
        assert 0 <= copy.beside <= self._runner.started
        assert all(0 <= page < self._runner.geometry.pages and 0 <= slot < self._ready for page, slot in copy.moves)
        assert len(set(copy.moves)) == len({p for p, _ in copy.moves}) == len({s for _, s in copy.moves})
        left = self._rng.sample(copy.moves, len(copy.moves))
        steps = self._runner.started - copy.beside
        fails = self._rng.random() < self.failures
        self._flying[copy] = _Flying(copy, steps, [self._flying[c] for c in after], left, fails)
        self.poke()

    def hold_steps(self, copies: Iterable[Copy]) -> None:
        self._held += [self._flying[copy] for copy in copies]

    def take_held(self) -> list[_Flying]:
        """What the step that is started now must come after."""
        held, self._held = self._held, []
        return held

    def landed(self) -> list[Landed]:
        self.poke()
        told = [f for f in self._flying.values() if f.done and self._rng.random() < 0.7]
        self._rng.shuffle(told)
        for flying in told:
            del self._flying[flying.copy]
            if flying.fails:
                self.failed.append(flying.copy)
            elif flying.copy.to_host:
                self.saved += len(flying.copy.moves)
            else:
                self.restored += len(flying.copy.moves)
        return [Landed(flying.copy, not flying.fails, 1.0) for flying in told]

    def wait(self) -> None:
        assert self._flying, "nothing to wait for"
        self.finish(self._rng.choice(list(self._flying.values())))

    def fileno(self) -> int:
        raise AssertionError("nobody selects here")

    def poke(self) -> None:
        """Some of what may be copied is, some not."""
        for flying in self._rng.sample(list(self._flying.values()), len(self._flying)):
            if flying.steps <= self._runner.computed and all(other.done for other in flying.after):
                for _ in range(self._rng.choice([0, 0, 1, len(flying.left)])):
                    self._move(flying)

    def finish(self, flying: _Flying) -> None:
        """Every device would have landed it by now."""
        for other in flying.after:
            self.finish(other)
        assert flying.steps <= self._runner.computed, "it waits for a step that waits for it"
        while flying.left:
            self._move(flying)

    def _move(self, flying: _Flying) -> None:
        if not flying.left:
            return
        page, slot = flying.left.pop()
        pages = self._runner.memory[page * self._page_size : (page + 1) * self._page_size]
        slots = self._slots[slot * self._page_size : (slot + 1) * self._page_size]
        source, target = (pages, slots) if flying.copy.to_host else (slots, pages)
        target[:] = _GARBAGE if flying.fails and self._rng.random() < 0.7 else source
