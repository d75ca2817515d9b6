"""The engine: schedule → start → finish → take the tokens. On one thread, with no clock but a stopwatch.

Where steps overlap, the next one is scheduled and started before this one is finished (docs/architecture.md, "Steps in
flight"); else each is finished before the next is started. That number is all that differs.

With a host tier, copies that have landed are told to the policy before a step is scheduled, and those that it orders
are started after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import NamedTuple

from oi.runtime.batch import build_batch
from oi.runtime.exchange import Exchange
from oi.runtime.messages import Stats, StepDone, Submit, Token
from oi.runtime.runner import Handle, Runner, StepResult
from oi.runtime.scheduler import Scheduler
from oi.runtime.sequence import Sequence

__all__ = ["Engine"]


_NO_TIER: dict[str, int] = {}


class _Flight(NamedTuple):
    """A step that was started and is not finished."""

    handle: Handle
    drawing: list[Sequence]
    """By row."""
    began: float
    tokens: int
    keys: int
    """Tokens in the cache that sequences with one token read."""


class Engine:
    """Turns submitted sequences into tokens, one step at a time. Not to be shared between threads."""

    def __init__(self, runner: Runner, clock: Callable[[], float] = perf_counter) -> None:
        """`clock`: seconds from any moment on."""
        self._runner = runner
        self._clock = clock
        self._page_size = runner.geometry.page_size
        self.exchange = None if runner.copies is None else Exchange(runner.copies)
        self.scheduler = Scheduler(runner.geometry, self.exchange.tier if self.exchange else None)
        self._in_flight: deque[_Flight] = deque()
        self._most_in_flight = 2 if runner.overlaps else 1
        self._generated = 0
        self._step_seconds = 0.0
        self._finished = 0.0
        """When the last step was finished: a step that overlaps counts from there."""

    @property
    def has_work(self) -> bool:
        """Whether there is something to compute, or to finish."""
        return bool(self._in_flight) or self.scheduler.has_work

    def submit(self, request: Submit) -> None:
        """Queue a sequence. Raises RequestError where it cannot run; the others are undisturbed."""
        self.scheduler.submit(request)

    def abort(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            self.scheduler.abort(id_)

    def step(self) -> StepDone:
        """Start what may be started and finish the oldest step; there must be work.

        Raises what the runner raises, after which the engine is of no use.
        """
        while (done := self.advance()) is None:
            self.wait()
        return done

    @property
    def landings(self) -> int:
        """A descriptor that is readable when a copy has landed that `advance` may need."""
        assert self.exchange is not None
        return self.exchange.copies.fileno()

    def catch_up(self) -> None:
        """Take note of what has landed, and of what room the host has, while no step does."""
        if self.exchange is not None:
            self.exchange.take(self.scheduler)

    def wait(self) -> None:
        """Until a copy has landed, after `advance` had nothing to do."""
        assert self.exchange is not None
        self.exchange.copies.wait()

    def advance(self) -> StepDone | None:
        """The same, but None where there is no step until a copy has landed (`wait`, or `landings`)."""
        while len(self._in_flight) < self._most_in_flight and self._start():
            pass
        if not self._in_flight:
            assert self._awaits_copies, "there is work, so there is a step, or a copy to wait for"
            return None
        flight = self._in_flight.popleft()
        tokens = self._take(flight.drawing, self._runner.finish(flight.handle))
        now = self._clock()
        self._step_seconds = now - max(flight.began, self._finished)
        self._finished = now
        self.scheduler.pace.took(flight.tokens, flight.keys, self._step_seconds)
        return StepDone(tokens, self.stats())

    @property
    def _awaits_copies(self) -> bool:
        return self.exchange is not None and self.exchange.tier.waits

    def _start(self) -> bool:
        """Whether there was a step to start."""
        began = self._clock()
        if self.exchange is not None:
            self.exchange.take(self.scheduler)
        schedule = self.scheduler.schedule()
        if self.exchange is not None:
            self.exchange.send(self.scheduler, schedule)
        if not schedule:
            return False
        batch = build_batch(schedule, self._page_size)
        tokens, keys = len(batch.tokens), int(batch.context_lens[batch.query_lens == 1].sum())
        handle = self._runner.start(batch)
        self._in_flight.append(_Flight(handle, self.scheduler.started(schedule), began, tokens, keys))
        return True

    def _take(self, drawing: list[Sequence], result: StepResult) -> list[Token]:
        taken = []
        for row, (sequence, token) in enumerate(zip(drawing, result.tokens.tolist(), strict=True)):
            if sequence.ended:  # by a stop token or an abort, with this step in flight
                continue
            cached = sequence.cached if len(sequence.tokens) == sequence.prompt_len else None
            finish = sequence.append(token)
            if finish is not None:
                self.scheduler.finish(sequence)
            logprob, top = None, None
            if sequence.logprobs is not None:
                logprob, top = _log_probs(result, row, sequence.logprobs)
            taken.append(Token(sequence.id, token, finish, logprob, top, cached))
        self._generated += len(taken)
        return taken

    def stats(self) -> Stats:
        scheduler, counters = self.scheduler, self.scheduler.counters
        return Stats(
            steps=counters.steps,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            pages_used=scheduler.kv.num_held,
            pages_cached=scheduler.kv.num_idle,
            pages_total=scheduler.kv.num_pages,
            prefix_queries=counters.prefix_queries,
            prefix_hits=counters.prefix_hits,
            prompt_tokens=counters.prompt_tokens,
            generated_tokens=self._generated,
            preemptions=counters.preemptions,
            step_seconds=self._step_seconds,
            **(_NO_TIER if self.exchange is None else self.exchange.stats(counters.host_hits)),
        )


def _log_probs(result: StepResult, row: int, wanted: int) -> tuple[float, list[tuple[int, float]]]:
    """The row's token's log-probability and its `wanted` alternatives."""
    assert result.logprobs is not None
    assert result.top_tokens is not None
    assert result.top_logprobs is not None
    tokens, values = result.top_tokens[row, :wanted].tolist(), result.top_logprobs[row, :wanted].tolist()
    return float(result.logprobs[row]), list(zip(tokens, values, strict=True))
