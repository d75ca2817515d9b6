"""A clock for engines of which time is no matter, the same in every run."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

__all__ = ["fitful"]


def fitful() -> Callable[[], float]:
    """It jumps by nothing up to a tenth of a second between two looks, so steps seem to take anything."""
    rng, now = Random(0), 0.0

    def look() -> float:
        nonlocal now
        now += rng.random() ** 4 / 10
        return now

    return look
