"""Decode steps beside copies: while the tier's memory grows, and with the bus busy all the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.batches import Pages, Part, make_batch
from oi.runtime.copies import Copies, Copy
from oi.runtime.runner import Runner

__all__ = ["STEPS", "copies_of", "copying", "growth", "spread"]

DECODE = ((8, 1024), (1, 1024))
STEPS = 300
IN_FLIGHT, PAGES_A_COPY, PAGES = 2, 512, 32
"""Of `copying`, each way: as many as a restore of 16 k tokens queues at once."""


def growth(runner: Runner) -> dict[str, Any]:
    """Decode steps from the runner's opening on, until nothing grows any more, and as many after."""
    copies, began = copies_of(runner), time.perf_counter()
    sizes = [copies.num_slots]
    while_growing: list[float] = []
    steps = decode_steps(runner, min(8, _roomy(runner) // 512), 256)
    quiet = time.perf_counter()
    while time.perf_counter() - quiet < 1.0:
        while_growing.append(next(steps))
        if copies.num_slots != sizes[-1]:
            sizes.append(copies.num_slots)
            quiet = time.perf_counter()
    after = [next(steps) for _ in range(max(len(while_growing), 500))]
    return {
        "slots": sizes[-1],
        "gib": sizes[-1] * copies.page_bytes / 2**30,
        "seconds": quiet - began,
        "growing": spread(while_growing),
        "grown": spread(after),
    }


def copying(runner: Runner) -> list[dict[str, Any]]:
    """Medians of decode steps in the same run, alone and with the bus busy."""
    rows = []
    for batch, context in DECODE:
        if batch > runner.geometry.max_num_seqs or batch * context > _roomy(runner):
            continue
        row: dict[str, Any] = {"batch": batch, "context": context}
        for name, ways in (("alone", ()), ("save", (True,)), ("restore", (False,)), ("both", (True, False))):
            bus = _Bus(runner, ways)
            steps = decode_steps(runner, batch, context)
            seconds = []
            for _ in range(STEPS):
                bus.keep_busy()
                seconds.append(next(steps))
            steps.close()
            row[name] = {**spread(seconds), "gb_s": bus.drain()}
        rows.append(row)
    return rows


class _Bus:
    """Copies of a few pages that nobody uses, the last of the device's, again and again."""

    def __init__(self, runner: Runner, ways: tuple[bool, ...]) -> None:
        self._copies, self._ways = copies_of(runner), ways
        self._last = runner.geometry.pages
        self._count = dict.fromkeys(ways, 0)
        self._bytes, self._began = 0, time.perf_counter()

    def keep_busy(self) -> None:
        self._take()
        for to_host in self._ways:
            while self._count[to_host] < IN_FLIGHT:
                self._count[to_host] += 1
                half = PAGES * to_host
                moves = [(self._last - 1 - half - i % PAGES, half + i % PAGES) for i in range(PAGES_A_COPY)]
                self._copies.start(Copy(to_host, moves, beside=1 << 20), ())

    def drain(self) -> float:
        """Gigabytes a second, both ways together."""
        while any(self._count.values()):
            self._copies.wait()
            self._take()
        return self._bytes / (time.perf_counter() - self._began) / 1e9

    def _take(self) -> None:
        for copy, ok, _ in self._copies.landed():
            assert ok
            self._count[copy.to_host] -= 1
            self._bytes += len(copy.moves) * self._copies.page_bytes


def decode_steps(runner: Runner, batch: int, context: int) -> Iterator[float]:
    """Seconds of each step at about `context`, overlapped as the engine does, in the first of the pages."""
    size = runner.geometry.page_size
    pages = Pages(batch * -(-(context + 8) // size), size)
    rng = np.random.default_rng()
    sequences = [
        pages.sequence(rng.integers(runner.geometry.vocab_size, size=context + 8, dtype=np.int32)) for _ in range(batch)
    ]
    for sequence in sequences:
        while sequence.computed < context:
            count = min(runner.geometry.max_step_tokens, context - sequence.computed)
            runner.finish(runner.start(make_batch([Part(sequence, count, frozenset())], size)[0]))

    def start(fed: bool) -> Any:
        for sequence in sequences:
            sequence.computed = context  # the same position again and again
        return runner.start(make_batch([Part(s, 1) for s in sequences], size, fed=fed and runner.overlaps)[0])

    handle, last = start(False), time.perf_counter()
    try:
        while True:
            following = start(True)
            runner.finish(handle)
            handle, now = following, time.perf_counter()
            yield now - last
            last = now
    finally:
        runner.finish(handle)


def _roomy(runner: Runner) -> int:
    """Tokens of pages that `_Bus` leaves alone."""
    return (runner.geometry.pages - 2 * PAGES) * runner.geometry.page_size


def copies_of(runner: Runner) -> Copies:
    assert runner.copies is not None
    return runner.copies


def spread(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(seconds, (0.5, 0.99)).tolist()
    return {"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "max_ms": 1e3 * max(seconds), "mean_ms": 1e3 * np.mean(seconds)}
