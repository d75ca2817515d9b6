"""The CPU's copies in a thread: what is copied, what is told, and what steps wait for."""

from __future__ import annotations

import select
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from oi.runtime.copies import Copy, Landed
from oi.runtime.device.cpu_copies import CpuCopies

PAGES, SLOTS, SIZE = 6, 4, 32


@pytest.fixture
def pages() -> NDArray[np.uint8]:
    return np.random.default_rng().integers(256, size=(PAGES, SIZE), dtype=np.uint8)


def _land(copies: CpuCopies, *expected: Copy) -> list[Landed]:
    found: list[Landed] = []
    while len(found) < len(expected):
        copies.wait()
        found += copies.landed()
    assert [landed.copy for landed in found] == list(expected)
    return found


def test_a_page_comes_back_as_it_left_and_elsewhere(pages: NDArray[np.uint8]) -> None:
    copies, before = CpuCopies(pages, SLOTS), pages.copy()
    save, restore = Copy(True, [(0, 3), (5, 0)]), Copy(False, [(1, 0), (5, 3)])
    copies.start(save, ())
    copies.start(restore, [save])
    landed = _land(copies, save, restore)
    assert all(entry.ok and entry.seconds > 0 for entry in landed)
    assert (pages == before[[0, 5, 2, 3, 4, 0]]).all()
    assert copies.landed() == []


def test_the_descriptor_is_readable_until_all_is_taken(pages: NDArray[np.uint8]) -> None:
    copies = CpuCopies(pages, SLOTS)
    assert not select.select([copies.fileno()], [], [], 0)[0]
    for slot in range(3):
        copies.start(Copy(True, [(slot, slot)]), ())
    taken = 0
    while taken < 3:
        assert select.select([copies.fileno()], [], [], 10)[0]
        taken += len(copies.landed())
    assert not select.select([copies.fileno()], [], [], 0)[0]


def test_steps_are_held_until_the_copy_has_landed(pages: NDArray[np.uint8]) -> None:
    copies, go, expected = CpuCopies(pages, SLOTS), Event(), pages[2].copy()
    copies._thread.submit(go.wait)  # what keeps the bus busy
    save = Copy(True, [(2, 1)])
    copies.start(save, ())
    assert copies.landed() == []
    go.set()
    copies.hold_steps([save])
    pages[2] = 0  # the step
    back = Copy(False, [(2, 1)])
    copies.start(back, ())
    copies.hold_steps([back])
    assert (pages[2] == expected).all()
