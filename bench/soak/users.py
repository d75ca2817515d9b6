"""Users in processes of their own, each sending the next request when the last was answered."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.serve.client import Record, ask, open_session
from bench.soak.mix import Mix, Request

__all__ = ["Answer", "Plan", "send", "send_all"]

_PAUSE_SECONDS = 0.5
"""Of a user whose request failed: a server that is gone should not be asked thousands of times a second."""
_FIRST_PATIENCE_SECONDS = 1.0
_SENT, _ENDED, _FAILED, _STOP = range(4)


@dataclass(frozen=True)
class Answer:
    record: Record
    streamed: bool
    left: bool
    """Its user went before the end, which is no failure."""
    probe: int | None


@dataclass(frozen=True)
class Plan:
    url: str
    mix: Mix
    users: int
    seed: int
    begin: float
    """`time.perf_counter()`"""
    end: float
    """No request is begun later; all are awaited."""
    timeout: float
    """Seconds for one request."""


def send_all(plan: Plan, processes: int, watch: Callable[[int, int, int], None]) -> tuple[list[Answer], float]:
    """All answers, and the CPU seconds of the busiest process.

    `watch` is called ten times a second with the requests sent, ended and failed; if it raises, users stop.
    """
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", 4)
    with ProcessPoolExecutor(processes, context, initializer=_join, initargs=(counts,)) as pool:
        futures = [pool.submit(_play, plan, range(i, plan.users, processes)) for i in range(processes)]
        try:
            while wait(futures, 0.1).not_done:
                watch(counts[_SENT], counts[_ENDED], counts[_FAILED])
        finally:
            counts[_STOP] = 1
        done = [future.result() for future in futures]
    return [answer for answers, _ in done for answer in answers], max(cpu for _, cpu in done)


async def send(session: aiohttp.ClientSession, url: str, request: Request, timeout: float, last: float = 0.0) -> Answer:
    """One request to the server at `url`; `last` is how many seconds its user's last took."""
    patience = timeout if request.patience is None else min(timeout, request.patience * last)
    now = time.perf_counter()
    record = await ask(session, url + request.path, request.body, due=now, output=request.output, timeout=patience)
    left = request.patience is not None and record.failure == "timeout"
    if left:
        record.failure = None
    return Answer(record, request.streamed, left, request.probe)


_counts: Any


def _join(counts: Any) -> None:
    global _counts
    _counts = counts


def _play(plan: Plan, users: range) -> tuple[list[Answer], float]:
    gc.freeze()
    return asyncio.run(_play_all(plan, users))


async def _play_all(plan: Plan, users: range) -> tuple[list[Answer], float]:
    async with open_session() as session:
        await asyncio.sleep(plan.begin - time.perf_counter())
        begun = time.process_time()
        answers = await asyncio.gather(*(_user(session, plan, number) for number in users))
        return [answer for each in answers for answer in each], time.process_time() - begun


async def _user(session: aiohttp.ClientSession, plan: Plan, number: int) -> list[Answer]:
    chance = random.Random(f"{plan.seed} user {number}")
    answers: list[Answer] = []
    last = _FIRST_PATIENCE_SECONDS
    while time.perf_counter() < plan.end and not _counts[_STOP]:
        request = plan.mix.draw(chance)
        _count(_SENT)
        answer = await send(session, plan.url, request, plan.timeout, last)
        _count(_ENDED)
        answers.append(answer)
        if answer.record.failure is not None:
            _count(_FAILED)
            await asyncio.sleep(_PAUSE_SECONDS)
        elif not answer.left:
            last = answer.record.ended - answer.record.sent
    return answers


def _count(which: int) -> None:
    with _counts.get_lock():
        _counts[which] += 1
