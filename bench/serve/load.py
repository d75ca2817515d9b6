"""Load from client processes of their own, so that reading thousands of tokens a second hurries nobody."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

from bench.serve.client import Record
from bench.serve.worker import Target, Work, join, play

__all__ = ["Clients", "Load", "poisson"]


@dataclass(frozen=True)
class Load:
    """What the client processes saw."""

    records: list[Record]
    client_seconds: float
    """CPU time of the busiest of them."""


def poisson(rate: float, n: int, chance: random.Random) -> list[float]:
    """Arrivals of a Poisson process of `rate` a second, given that it has `n` in n / rate seconds."""
    return sorted(chance.uniform(0, n / rate) for _ in range(n))


class Clients:
    """Client processes. `progress` is called ten times a second with the requests sent, ended, and failed so far."""

    def __init__(self, processes: int, progress: Callable[[int, int, int], None] = lambda *_: None) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes = processes
        self._progress = progress
        self._counts = context.Array("q", 3)
        self._pool = ProcessPoolExecutor(
            processes, context, initializer=join, initargs=(context.Barrier(processes), self._counts)
        )

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, target: Target, works: Sequence[Work]) -> Load:
        """All of `works` at once, each in a process of its own; there are as many as processes, or one."""
        assert len(works) in (1, self._processes)
        self._counts[:] = [0, 0, 0]
        futures: list[Future[tuple[list[Record], float]]] = [
            self._pool.submit(play, target, work, together=len(works) > 1) for work in works
        ]
        while wait(futures, 0.1).not_done:
            self._progress(*self._counts[:])
        done = [future.result() for future in futures]
        self._progress(*self._counts[:])
        return Load([record for records, _ in done for record in records], max(cpu for _, cpu in done))

    def share(self, n: int) -> list[int]:
        """`n` as evenly as it goes among the processes."""
        return [len(range(i, n, self._processes)) for i in range(self._processes)]

    def deal(self, values: list[float]) -> list[list[float]]:
        return [values[i :: self._processes] for i in range(self._processes)]
