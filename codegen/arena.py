"""Offsets in one block of memory for buffers that live at different times: best fit, the largest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ALIGNMENT", "Span", "aligned", "assign_offsets"]

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""


@dataclass(frozen=True, slots=True)
class Span:
    """A buffer's size, and the steps from the one that writes it to the last one that reads it."""

    bytes: int
    first: int
    last: int

    def meets(self, other: Span) -> bool:
        """Both live at some step. A step's operands and results meet: kernels do not work in place."""
        return self.first <= other.last and other.first <= self.last


def aligned(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def assign_offsets(spans: Sequence[Span]) -> tuple[list[int], int]:
    """An aligned offset for each span, so that no two that meet overlap; and the bytes needed in all."""
    offsets: dict[int, int] = {}
    for i in sorted(range(len(spans)), key=lambda i: (-spans[i].bytes, spans[i].first)):
        busy = [(offset, offset + aligned(spans[j].bytes)) for j, offset in offsets.items() if spans[i].meets(spans[j])]
        offsets[i] = _best_gap(sorted(busy), aligned(spans[i].bytes))
    total = max((offset + aligned(spans[i].bytes) for i, offset in offsets.items()), default=0)
    return [offsets[i] for i in range(len(spans))], total


def _best_gap(busy: list[tuple[int, int]], size: int) -> int:
    """The start of the smallest gap between busy ranges (sorted) that holds `size`, else the end of all of them."""
    gaps: list[tuple[int, int]] = []
    end = 0
    for begin, stop in busy:
        if begin - end >= size:
            gaps.append((begin - end, end))
        end = max(end, stop)
    return min(gaps)[1] if gaps else end
