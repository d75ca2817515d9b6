"""The host tier of the CPU target: pages copied from memory to memory, by a thread beside the one that computes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from oi.runtime.copies import Copy, Landed
from oi.runtime.device.landings import Landings

__all__ = ["CpuCopies"]


class CpuCopies:
    """See copies.Copies. Steps are computed while they are started, so no copy has one to wait for."""

    def __init__(self, pages: NDArray[np.uint8], num_slots: int) -> None:
        """`pages`: [pages, bytes of one], the device's memory. The system backs slots when they are first written."""
        self.num_slots = num_slots
        self.page_bytes = pages.shape[1]
        self._pages = pages
        self._slots = np.empty((num_slots, self.page_bytes), np.uint8)
        self._thread = ThreadPoolExecutor(1, "copies")
        self._flying: dict[Copy, Future[None]] = {}
        self._landings = Landings()

    def start(self, copy: Copy, after: Iterable[Copy]) -> None:
        """The one thread copies in the order of this, so that `after` needs no care."""
        self._flying[copy] = self._thread.submit(self._run, copy)

    def hold_steps(self, copies: Iterable[Copy]) -> None:
        for copy in copies:
            self._flying[copy].result()

    def landed(self) -> list[Landed]:
        taken = self._landings.take()
        for copy, _, _ in taken:
            del self._flying[copy]
        return taken

    def wait(self) -> None:
        self._landings.wait()

    def fileno(self) -> int:
        return self._landings.fileno()

    def _run(self, copy: Copy) -> None:
        began = perf_counter()
        for page, slot in copy.moves:
            if copy.to_host:
                self._slots[slot] = self._pages[page]
            else:
                self._pages[page] = self._slots[slot]
        self._landings.tell(Landed(copy, True, perf_counter() - began))
