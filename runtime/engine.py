"""The engine: schedule → run → postprocess. One step after the other, on one thread, with no clock but a stopwatch."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from oi.runtime.batch import Scheduled, build_batch
from oi.runtime.messages import Stats, StepDone, Submit, Token
from oi.runtime.runner import Runner, StepResult
from oi.runtime.scheduler import Scheduler
from oi.runtime.sequence import Sequence

__all__ = ["Engine"]


class Engine:
    """Turns submitted sequences into tokens, one step at a time. Not to be shared between threads."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._page_size = runner.geometry.page_size
        self.scheduler = Scheduler(runner.geometry)
        self._generated = 0
        self._step_seconds = 0.0

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def submit(self, request: Submit) -> None:
        """Queue a sequence. Raises RequestError where it cannot run; the others are undisturbed."""
        self.scheduler.submit(request)

    def abort(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            self.scheduler.abort(id_)

    def step(self) -> StepDone:
        """Run one step; there must be work. Raises what the runner raises, after which the engine is of no use."""
        started = perf_counter()
        schedule = self.scheduler.schedule()
        result = self._runner.finish(self._runner.start(build_batch(schedule, self._page_size)))
        tokens = self._take(schedule, result)
        self._step_seconds = perf_counter() - started
        return StepDone(tokens, self.stats())

    def _take(self, schedule: list[Scheduled], result: StepResult) -> list[Token]:
        for part in schedule:
            self.scheduler.computed(part)
        drawn = [part.sequence for part in schedule if part.samples]
        return [self._append(sequence, result, row) for row, sequence in enumerate(drawn)]

    def _append(self, sequence: Sequence, result: StepResult, row: int) -> Token:
        token = int(result.tokens[row])
        finish = sequence.append(token)
        if finish is not None:
            self.scheduler.finish(sequence)
        self._generated += 1
        logprob, top = _log_probs(result, row, sequence.logprobs)
        first = sequence.num_generated == 1
        return Token(sequence.id, token, finish, logprob, top, sequence.cached if first else None)

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
        )


def _log_probs(result: StepResult, row: int, wanted: int | None) -> tuple[float | None, list[tuple[int, float]] | None]:
    """The row's token's log-probability and its `wanted` alternatives; (None, None) where nobody asked."""
    if wanted is None:
        return None, None
    assert result.logprobs is not None
    assert result.top_tokens is not None
    assert result.top_logprobs is not None
    tokens, values = result.top_tokens[row, :wanted].tolist(), result.top_logprobs[row, :wanted].tolist()
    return float(result.logprobs[row]), list(zip(tokens, values, strict=True))
