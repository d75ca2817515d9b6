"""The last minute, second by second: what the page at `/` shows, and the log's line on the state."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from oi.runtime.http.histogram import Histogram
from oi.runtime.http.metrics import Metrics
from oi.runtime.messages import Stats

__all__ = ["History", "State", "StatusReport"]

State = Literal["loading", "ready", "draining", "dead"]

_SECONDS = 60
"""Kept, at one sample a second."""
_NOW_SECONDS = 5
"""What rates are the mean of."""
_NOTHING = Stats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0)


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Pages(_Record, frozen=True, kw_only=True):
    used: int
    """Held by running sequences; of the host tier: holding a prefix."""
    cached: int
    """Free, and holding a prefix."""
    total: int


class Quantiles(_Record, frozen=True, kw_only=True):
    """Seconds, of the last minute; null where nothing was observed."""

    p50: float | None
    p90: float | None
    p99: float | None


class Series(_Record, frozen=True, kw_only=True):
    """One value a second, the latest last."""

    prompt_tokens: list[float]
    """Computed."""
    generated_tokens: list[float]
    running: list[int]
    waiting: list[int]
    kv: list[float]
    """Share of the pages in use."""


class StatusReport(_Record, frozen=True, kw_only=True):
    """/status.json"""

    model: str
    state: State
    uptime_seconds: float
    max_model_len: int | None
    max_num_seqs: int | None
    running: int
    waiting: int
    kv: Pages
    host: Pages | None
    """null without a host tier."""
    prompt_tokens_per_second: float
    generated_tokens_per_second: float
    prefix_hit_rate: float | None
    """Share of the prompt tokens looked up in the last minute that were cached; null where there were none."""
    step_seconds: float
    """The last step's."""
    first_token: Quantiles
    inter_token: Quantiles
    request: Quantiles
    preemptions: int
    finished: dict[str, int]
    """Sequences by how they ended."""
    series: Series


class _Sample(NamedTuple):
    at: float
    stats: Stats
    first_token: list[int]
    inter_token: list[int]
    request: list[int]


class History:
    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._began = clock()
        self._samples: deque[_Sample] = deque([self._sample()], maxlen=_SECONDS + 1)

    def tick(self) -> None:
        """Once a second."""
        self._samples.append(self._sample())

    def _sample(self) -> _Sample:
        m = self._metrics
        counts = (list(h.counts) for h in (m.first_token, m.interval, m.request))
        return _Sample(self._clock(), m.stats or _NOTHING, *counts)

    def report(self, model: str, state: State) -> StatusReport:
        m, s, ready = self._metrics, self._metrics.stats or _NOTHING, self._metrics.ready
        oldest = self._samples[0]
        recent = self._samples[-min(len(self._samples), _NOW_SECONDS + 1)]
        last = self._samples[-1]
        return StatusReport(
            model=model,
            state=state,
            uptime_seconds=self._clock() - self._began,
            max_model_len=ready.max_model_len if ready else None,
            max_num_seqs=ready.max_num_seqs if ready else None,
            running=s.running,
            waiting=s.waiting,
            kv=Pages(used=s.pages_used, cached=s.pages_cached, total=s.pages_total),
            host=Pages(used=s.host_pages_used, cached=0, total=s.host_pages_total) if s.host_pages_total else None,
            prompt_tokens_per_second=_prompt_rate(recent, last),
            generated_tokens_per_second=_generated_rate(recent, last),
            prefix_hit_rate=_hit_rate(oldest.stats, s),
            step_seconds=s.step_seconds,
            first_token=_quantiles(m.first_token, oldest.first_token),
            inter_token=_quantiles(m.interval, oldest.inter_token),
            request=_quantiles(m.request, oldest.request),
            preemptions=s.preemptions,
            finished=m.finished,
            series=_series(self._samples),
        )

    def line(self, seconds: int) -> str | None:
        """The last `seconds` in one line; None where nothing happened in them."""
        before, now = self._samples[-min(len(self._samples), seconds + 1)], self._samples[-1]
        s = now.stats
        if s.steps == before.stats.steps and not (s.running or s.waiting):
            return None
        hits = _hit_rate(before.stats, s)
        pages = s.pages_used / s.pages_total if s.pages_total else 0.0
        host = f" host_pages_used={s.host_pages_used / s.host_pages_total:.1%}" if s.host_pages_total else ""
        return (
            f"running={s.running} waiting={s.waiting} pages_used={pages:.1%}{host} "
            f"prefix_hits={'-' if hits is None else f'{hits:.1%}'} "
            f"prompt_tokens_per_s={_prompt_rate(before, now):.1f} "
            f"generated_tokens_per_s={_generated_rate(before, now):.1f} "
            f"step_ms={s.step_seconds * 1e3:.2f} preemptions={s.preemptions - before.stats.preemptions}"
        )


def _prompt_rate(before: _Sample, now: _Sample) -> float:
    return _rate(now.stats.prompt_tokens - before.stats.prompt_tokens, now.at - before.at)


def _generated_rate(before: _Sample, now: _Sample) -> float:
    return _rate(now.stats.generated_tokens - before.stats.generated_tokens, now.at - before.at)


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if seconds > 0 else 0.0


def _hit_rate(before: Stats, now: Stats) -> float | None:
    queries = now.prefix_queries - before.prefix_queries
    hits = now.prefix_hits + now.host_hits - before.prefix_hits - before.host_hits
    return hits / queries if queries else None


def _quantiles(histogram: Histogram, since: list[int]) -> Quantiles:
    p50, p90, p99 = (histogram.quantile(q, since) for q in (0.5, 0.9, 0.99))
    return Quantiles(p50=p50, p90=p90, p99=p99)


def _series(samples: Iterable[_Sample]) -> Series:
    pairs = list(pairwise(samples))
    stats = [now.stats for _, now in pairs]
    return Series(
        prompt_tokens=[round(_prompt_rate(*pair), 1) for pair in pairs],
        generated_tokens=[round(_generated_rate(*pair), 1) for pair in pairs],
        running=[s.running for s in stats],
        waiting=[s.waiting for s in stats],
        kv=[round(s.pages_used / s.pages_total, 4) if s.pages_total else 0.0 for s in stats],
    )
