"""Counts of values by bucket, for what Prometheus scrapes and for the quantiles of the last minute."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

__all__ = ["Histogram"]

_STEPS_A_DECADE = 24
_FINE: list[float] = [
    10 ** (exponent / _STEPS_A_DECADE) for exponent in range(-4 * _STEPS_A_DECADE, 3 * _STEPS_A_DECADE + 1)
]
"""0.1 ms to 1000 s, each a tenth above the one before."""


class Histogram:
    def __init__(self, bounds: Sequence[float], *, fine: bool = False) -> None:
        """`bounds` are published; with `fine` there are more between them, so that `quantile` is good to a few %."""
        self._published = tuple(bounds)
        self._bounds = sorted({*bounds, *(_FINE if fine else ())})
        self.counts = [0] * (len(self._bounds) + 1)
        """By bucket: up to each bound and above the one before, and above them all."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Cheap enough for every token."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[float, int]]:
        """(published bound, values up to it), and the count of all at infinity."""
        below = dict(zip([*self._bounds, float("inf")], accumulate(self.counts), strict=True))
        return [(bound, below[bound]) for bound in (*self._published, float("inf"))]

    def quantile(self, q: float, since: Sequence[int] | None = None) -> float | None:
        """Of the values observed after `counts` was `since`; None where there are none."""
        counts = [now - then for now, then in zip(self.counts, since or [0] * len(self.counts), strict=True)]
        rank = q * sum(counts)
        below = 0
        for i, count in enumerate(counts):
            if count and below + count >= rank:
                low: float = self._bounds[i - 1] if i else 0.0
                high: float = self._bounds[min(i, len(self._bounds) - 1)]
                return low + (high - low) * max(0.0, rank - below) / count
            below += count
        return None
