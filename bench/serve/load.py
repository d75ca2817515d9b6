"""Load from client processes of their own, so that reading thousands of tokens a second hurries nobody."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

import aiohttp

from bench.serve import prompts
from bench.serve.client import Record, ask, open_session

__all__ = ["Clients", "ClosedLoop", "Load", "OpenLoop", "Series", "Target", "Work", "poisson"]


@dataclass(frozen=True)
class Target:
    """Whom to ask, and with what words."""

    url: str
    """Of the completions endpoint."""
    model: str
    words: prompts.Vocabulary
    timeout: float
    """Seconds for one request."""


@dataclass(frozen=True)
class OpenLoop:
    """Requests at given times, whatever became of those before."""

    arrivals: list[float]
    """Seconds from the start."""
    input: int
    output: int
    seed: int


@dataclass(frozen=True)
class ClosedLoop:
    """Users who each send their next request when their last has been answered, for so many seconds."""

    users: int
    seconds: float
    input: int
    output: int
    seed: int


@dataclass(frozen=True)
class Series:
    """One request after the other: the bodies, and the tokens each asks for."""

    bodies: list[bytes]
    output: int = 1


Work = OpenLoop | ClosedLoop | Series


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
            processes, context, initializer=_start, initargs=(context.Barrier(processes), self._counts)
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
            self._pool.submit(_run, target, work, together=len(works) > 1) for work in works
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


# in the client processes

_barrier: Barrier
_counts: Any


def _start(barrier: Barrier, counts: Any) -> None:
    global _barrier, _counts
    _barrier, _counts = barrier, counts


def _run(target: Target, work: Work, *, together: bool) -> tuple[list[Record], float]:
    gc.collect()
    gc.disable()  # a pause of the client would be read as the server's
    try:
        return asyncio.run(_work(target, work, together=together))
    finally:
        gc.enable()


async def _work(target: Target, work: Work, *, together: bool) -> tuple[list[Record], float]:
    bodies = _bodies(target, work)
    async with open_session() as session:
        sender = _Sender(session, target, work.output)
        if together:
            _barrier.wait(60)
        start, cpu_start = time.perf_counter(), time.process_time()
        match work:
            case OpenLoop():
                due = (start + seconds for seconds in work.arrivals)
                records = await asyncio.gather(*map(sender.send_at, due, bodies))
            case ClosedLoop():
                users = (sender.send_until(start + work.seconds, target, work, i) for i in range(work.users))
                records = [record for user in await asyncio.gather(*users) for record in user]
            case Series():
                records = [await sender.send(time.perf_counter(), body) for body in bodies]
        return records, time.process_time() - cpu_start


def _bodies(target: Target, work: Work) -> list[bytes]:
    """All that can be made before the clock starts."""
    match work:
        case OpenLoop():
            chance = random.Random(work.seed)
            return [prompts.body(target.model, target.words, work.input, work.output, chance) for _ in work.arrivals]
        case ClosedLoop():
            return []
        case Series():
            return work.bodies


class _Sender:
    def __init__(self, session: aiohttp.ClientSession, target: Target, output: int) -> None:
        self._session = session
        self._target = target
        self._output = output

    async def send(self, due: float, body: bytes) -> Record:
        with _counts.get_lock():
            _counts[0] += 1
        target = self._target
        record = await ask(self._session, target.url, body, due=due, output=self._output, timeout=target.timeout)
        with _counts.get_lock():
            _counts[1] += 1
            _counts[2] += record.failure is not None
        return record

    async def send_at(self, due: float, body: bytes) -> Record:
        await asyncio.sleep(due - time.perf_counter())
        return await self.send(due, body)

    async def send_until(self, deadline: float, target: Target, work: ClosedLoop, user: int) -> list[Record]:
        chance = random.Random(f"{work.seed}-{user}")
        records: list[Record] = []
        while not records or time.perf_counter() < deadline:
            body = prompts.body(target.model, target.words, work.input, work.output, chance)
            records.append(await self.send(time.perf_counter(), body))
        return records
