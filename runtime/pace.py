"""How many tokens a step takes beside sequences that decode, by what the engine's own steps have taken.

Prompts in a step delay the next token of everybody who decodes. So a step beside them is expected to take no longer
than `_CALM` seconds or, where that is more, `_SHARE` times what its decode rows would take alone, whatever device this
is; of the sizes within that, the one whose tokens are cheapest. docs/architecture.md, "Scheduling", has the figures
that decided it.

    expected seconds = base[size] + key · keys

Sizes are those that the device pads steps to. `base` is the moving average of a size's own steps; what they depend on
besides, it follows. `key` is what a decode row's reading of one token in the cache costs, known in proportion to the
fastest step: both read memory. A size that was not used for `_MEMORY` steps is expected to cost no more than its
smaller neighbour in proportion, half of the fastest step set aside. So every size that may do is tried, and tried
again when it was left for a stall, or for a long prompt's attention.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf

from oi.runtime.geometry import Geometry

__all__ = ["Pace"]

_CALM = 0.018
"""Nobody minds it between two tokens."""
_SHARE = 3.0
"""Where decode steps are long themselves: prompts may have two thirds of the time, so they never starve."""
_MEMORY = 100
"""Steps after which a size that was not used is worth another try."""
_RATE = 0.25
"""Weight of the last step in the average. It counts as no more than twice what was expected: machines stall."""


class Pace:
    """Learns what steps cost, and says how large the next may be."""

    def __init__(self, geometry: Geometry) -> None:
        most = geometry.max_step_tokens
        self._pads = bool(geometry.token_buckets)
        self._sizes = [*(size for size in geometry.token_buckets or _ladder(most) if size < most), most]
        self._base = [inf] * len(self._sizes)
        """Seconds, by size; infinite where no such step was."""
        self._fastest = inf
        self._steps = 0
        self._last = [-_MEMORY] * len(self._sizes)
        """Which step was of this size."""
        self._key_cost = geometry.key_cost

    def took(self, tokens: int, keys: int, seconds: float) -> None:
        """A step of `tokens` in all, whose decode rows read `keys`, took so long. None is faster than the fastest."""
        place = bisect_left(self._sizes, tokens)
        base, costs = self._base[place], self._key_cost * keys
        found = max(seconds - self._fastest * costs, seconds / (1 + costs)) if costs else seconds
        self._base[place] = found if self._is_old(place) else base + _RATE * (min(found, 2 * base) - base)
        self._fastest = min(self._base)
        self._steps += 1
        self._last[place] = self._steps

    def most_tokens(self, rows: int, keys: int) -> int:
        """Of the next step, if `rows` of it decode and read `keys`; more than `rows`, if a step may be."""
        if not rows or self._fastest == inf:
            return self._sizes[-1]
        bases, sizes = self._expected(), self._sizes
        first = min(bisect_right(sizes, rows), len(sizes) - 1)
        known = [base for base in self._base[: bisect_left(sizes, rows) + 1] if base < inf]
        if not known:  # what few rows cost alone; a small step tells
            return sizes[first]
        attention = self._key_cost * self._fastest * keys
        end = bisect_right(bases, max(_CALM, _SHARE * (max(known) + attention)) - attention)
        return sizes[min(range(first, max(first + 1, end)), key=lambda i: bases[i] / sizes[i])]

    def excess(self, tokens: int, rows: int) -> int:
        """Of a step's tokens, how many of those that do not decode are better left for the next.

        They are where a full step of the next smaller size, and then one with the rest, are sooner done.
        """
        place = bisect_left(self._sizes, tokens)
        smaller = self._sizes[place - 1] if place else 0
        if not self._pads or smaller <= rows or tokens == self._sizes[place] or self._fastest == inf:
            return 0
        bases, rest = self._expected(), tokens - smaller
        return rest if bases[place - 1] + bases[bisect_left(self._sizes, rows + rest)] < bases[place] else 0

    def _expected(self) -> list[float]:
        """Base by size, rising."""
        bases, sizes, aside = self._base.copy(), self._sizes, self._fastest / 2
        for i in range(1, len(bases)):
            if self._is_old(i):
                bases[i] = min(bases[i], aside + (bases[i - 1] - aside) * sizes[i] / sizes[i - 1])
        for i in range(len(bases) - 2, -1, -1):
            bases[i] = min(bases[i], bases[i + 1])
        return bases

    def _is_old(self, place: int) -> bool:
        return self._steps - self._last[place] >= _MEMORY


def _ladder(most: int) -> list[int]:
    """Sizes for a device that pads nothing: each a quarter larger than the one before."""
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(max(sizes[-1] + 1, sizes[-1] * 5 // 4))
    return sizes
