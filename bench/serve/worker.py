"""What a client process does: it prepares a load, waits for the others, and plays it."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from multiprocessing.synchronize import Barrier
from typing import Any

import aiohttp

from bench.serve import prompts
from bench.serve.client import Record, ask, open_session

__all__ = ["ClosedLoop", "OpenLoop", "Series", "Target", "Work", "join", "play"]

_PREPARE_SECONDS = 120
_Play = Callable[[float], Awaitable[list[Record]]]
"""Takes the time at which the clock started."""


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


_barrier: Barrier
_counts: Any


def join(barrier: Barrier, counts: Any) -> None:
    """Called once in each client process; `counts` are the requests sent, ended, and failed."""
    global _barrier, _counts
    _barrier, _counts = barrier, counts


def play(target: Target, work: Work, *, together: bool) -> tuple[list[Record], float]:
    """The records, and the CPU seconds it took. `together`: begin when all client processes have come so far."""
    gc.collect()
    gc.disable()  # a pause of the client would be read as the server's
    try:
        return asyncio.run(_play(target, work, together=together))
    finally:
        gc.enable()


async def _play(target: Target, work: Work, *, together: bool) -> tuple[list[Record], float]:
    async with open_session() as session:
        prepared = _prepare(_Sender(session, target, work.output), target, work)
        if together:
            _barrier.wait(_PREPARE_SECONDS)
        start, cpu_start = time.perf_counter(), time.process_time()
        return await prepared(start), time.process_time() - cpu_start


def _prepare(sender: _Sender, target: Target, work: Work) -> _Play:
    """All that can be done before the clock starts."""
    match work:
        case OpenLoop():
            chance = random.Random(work.seed)
            bodies = [prompts.body(target.model, target.words, work.input, work.output, chance) for _ in work.arrivals]
            return lambda start: sender.send_all(start, work.arrivals, bodies)
        case ClosedLoop():
            users = [_user(target, work, i) for i in range(work.users)]
            return lambda start: sender.send_in_loops(start + work.seconds, users)
        case Series():
            return lambda start: sender.send_in_turn(work.bodies)


def _user(target: Target, work: ClosedLoop, number: int) -> Iterator[bytes]:
    """Endless; the first body is made now, since all users send theirs at once."""
    chance = random.Random(f"{work.seed}-{number}")

    def bodies() -> Iterator[bytes]:
        while True:
            yield prompts.body(target.model, target.words, work.input, work.output, chance)

    rest = bodies()
    return chain([next(rest)], rest)


class _Sender:
    def __init__(self, session: aiohttp.ClientSession, target: Target, output: int) -> None:
        self._session = session
        self._target = target
        self._output = output

    async def send_all(self, start: float, arrivals: Iterable[float], bodies: Iterable[bytes]) -> list[Record]:
        async def send_at(due: float, body: bytes) -> Record:
            await asyncio.sleep(due - time.perf_counter())
            return await self._send(due, body)

        return await asyncio.gather(*(send_at(start + a, body) for a, body in zip(arrivals, bodies, strict=True)))

    async def send_in_loops(self, deadline: float, users: Iterable[Iterator[bytes]]) -> list[Record]:
        async def loop(bodies: Iterator[bytes]) -> list[Record]:
            records: list[Record] = []
            while not records or time.perf_counter() < deadline:
                body = next(bodies)
                records.append(await self._send(time.perf_counter(), body))
            return records

        return [record for records in await asyncio.gather(*map(loop, users)) for record in records]

    async def send_in_turn(self, bodies: Iterable[bytes]) -> list[Record]:
        return [await self._send(time.perf_counter(), body) for body in bodies]

    async def _send(self, due: float, body: bytes) -> Record:
        with _counts.get_lock():
            _counts[0] += 1
        target = self._target
        record = await ask(self._session, target.url, body, due=due, output=self._output, timeout=target.timeout)
        with _counts.get_lock():
            _counts[1] += 1
            _counts[2] += record.failure is not None
        return record
