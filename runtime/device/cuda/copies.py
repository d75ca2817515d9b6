"""Copies of KV pages on a GPU: a stream for each way, beside that of the steps.

Pages that lie side by side, here and there, are one call: whoever orders copies pairs pages and slots in one order,
so that there are such. What a copy must come after is waited for on the GPU, by its stream; nothing here waits but the
thread that sees copies land, one a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from oi.runtime.copies import Copy, Landed
from oi.runtime.device.cuda.driver import Driver
from oi.runtime.device.cuda.host_pool import HostPool
from oi.runtime.device.landings import Landings
from oi.runtime.errors import DeviceError

__all__ = ["CudaCopies", "Steps"]


class Steps(NamedTuple):
    """The stream of the steps, and what tells when they are done."""

    stream: Any
    done: Callable[[int], Any]
    """The event after which all steps are done but so many, those started last; None where they are by now."""


class _Flying(NamedTuple):
    copy: Copy
    begin: Any
    end: Any
    queued: bool
    """All of it: else it failed."""


class CudaCopies:
    """See copies.Copies."""

    def __init__(self, driver: Driver, steps: Steps, pages: int, pool: HostPool) -> None:
        """`pages`: the address of page 0 on the GPU."""
        self.page_bytes = pool.page_bytes
        self.pool = pool
        self._driver = driver
        self._steps = steps
        self._pages = pages
        self._save = _Way(driver, "saves")
        self._restore = _Way(driver, "restores")
        self._landings = Landings()
        self._flying: dict[Copy, _Flying] = {}
        self._events: list[Any] = []
        """Of copies that have landed: to be used again."""
        for way in (self._save, self._restore):
            Thread(target=self._watch, args=(way,), name=way.name, daemon=True).start()

    @property
    def num_slots(self) -> int:
        return self.pool.num_slots

    def start(self, copy: Copy, after: Iterable[Copy]) -> None:
        """Raises DeviceError where the GPU is lost; a copy that it refuses lands as failed."""
        call = self._driver.call
        way = self._save if copy.to_host else self._restore
        waits = [self._flying[other].end for other in after]
        if (done := self._steps.done(copy.beside)) is not None:
            waits.append(done)
        for event in waits:
            call("cuStreamWaitEvent", way.stream, event, 0)
        begin, end = self._event(), self._event()
        call("cuEventRecord", begin, way.stream)
        queued = self._queue(copy, way.stream)
        call("cuEventRecord", end, way.stream)
        flying = self._flying[copy] = _Flying(copy, begin, end, queued)
        way.queue.put(flying)

    def hold_steps(self, copies: Iterable[Copy]) -> None:
        for copy in copies:
            self._driver.call("cuStreamWaitEvent", self._steps.stream, self._flying[copy].end, 0)

    def landed(self) -> list[Landed]:
        taken = self._landings.take()
        for copy, _, _ in taken:
            flying = self._flying.pop(copy)
            self._events += (flying.begin, flying.end)
        return taken

    def wait(self) -> None:
        self._landings.wait()

    def fileno(self) -> int:
        return self._landings.fileno()

    def _queue(self, copy: Copy, stream: Any) -> bool:
        """Whether the driver took all of it. A call costs 4 µs here and 3 on the bus, a page 44 there."""
        size, pages, slot_at, api = self.page_bytes, self._pages, self.pool.address, self._driver.api
        for page, slot, count in _runs(copy.moves, self.pool.slots_of_block):
            on_gpu, on_host = pages + page * size, slot_at(slot)
            if copy.to_host:
                status = api.cuMemcpyDtoHAsync(on_host, on_gpu, count * size, stream)[0]
            else:
                status = api.cuMemcpyHtoDAsync(on_gpu, on_host, count * size, stream)[0]
            if int(status):
                return False
        return True

    def _event(self) -> Any:
        """With a time; a thread that waits for it sleeps."""
        if self._events:
            return self._events.pop()
        return self._driver.call("cuEventCreate", self._driver.api.CUevent_flags.CU_EVENT_BLOCKING_SYNC)

    def _watch(self, way: _Way) -> None:
        call = self._driver.call
        self._driver.use()
        while True:
            flying: _Flying = way.queue.get()
            try:
                call("cuEventSynchronize", flying.end)
                landed = Landed(flying.copy, flying.queued, 1e-3 * call("cuEventElapsedTime", flying.begin, flying.end))
            except DeviceError:  # the step in flight fails too, and says why
                landed = Landed(flying.copy, False, 0.0)
            self._landings.tell(landed)


def _runs(moves: list[tuple[int, int]], slots_of_block: int) -> list[tuple[int, int, int]]:
    """(first page, first slot, how many): moves that are side by side on both sides and in one block are one."""
    runs: list[tuple[int, int, int]] = []
    first_page, first_slot, count = -1, -1, 0
    for page, slot in sorted(moves):
        if page == first_page + count and slot == first_slot + count and slot % slots_of_block:
            count += 1
            continue
        if count:
            runs.append((first_page, first_slot, count))
        first_page, first_slot, count = page, slot, 1
    return [*runs, (first_page, first_slot, count)] if count else runs


class _Way:
    """A stream, and the copies on it that have not landed, in order."""

    def __init__(self, driver: Driver, name: str) -> None:
        self.name = name
        self.stream = driver.stream()
        self.queue: SimpleQueue[_Flying] = SimpleQueue()
