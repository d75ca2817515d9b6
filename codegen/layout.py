"""Place boxes of a layered drawing (after Sugiyama): ranks are given; order in a rank, x and routes are found.

An edge over several ranks passes each rank between them in a lane of its own, so that it crosses no box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Box", "Layout", "place"]

_GAP_X, _GAP_Y, _LANE = 28.0, 34.0, 14.0
_SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Box:
    width: float
    height: float
    rank: int


@dataclass(frozen=True)
class Layout:
    x: list[float]
    """Of each box's centre."""
    y: list[float]
    """Of each box's upper edge."""
    routes: list[list[tuple[float, float]]]
    """Of each edge: the points that it passes, from the lower edge of one box to the upper edge of the other."""
    width: float
    height: float


def place(boxes: Sequence[Box], edges: Sequence[tuple[int, int]], extra_gap: Sequence[float]) -> Layout:
    """`edges` are pairs of boxes, each from a lower rank to a higher; `extra_gap[r]` is room above rank r."""
    widths = [box.width for box in boxes]
    ranks = [box.rank for box in boxes]
    chains = [_chain(edge, ranks, widths) for edge in edges]
    rows: list[list[int]] = [[] for _ in extra_gap]
    for i, rank in enumerate(ranks):
        rows[rank].append(i)
    x = _settle(rows, widths, _neighbours(chains, len(widths)))
    tops, bottoms = _heights(boxes, extra_gap)
    routes = [_route(chain, boxes, ranks, x, tops, bottoms) for chain in chains]
    left = min(x[i] - widths[i] / 2 for i in range(len(widths)))
    right = max(x[i] + widths[i] / 2 for i in range(len(widths)))
    shifted = [[(px - left, py) for px, py in route] for route in routes]
    y = [tops[box.rank] for box in boxes]
    return Layout([v - left for v in x[: len(boxes)]], y, shifted, right - left, bottoms[-1])


def _chain(edge: tuple[int, int], ranks: list[int], widths: list[float]) -> list[int]:
    """The edge as a path with a lane, a thin box, in each rank between its ends."""
    source, target = edge
    chain = [source]
    for rank in range(ranks[source] + 1, ranks[target]):
        chain.append(len(ranks))
        ranks.append(rank)
        widths.append(_LANE)
    return [*chain, target]


def _neighbours(chains: list[list[int]], count: int) -> tuple[list[list[int]], list[list[int]]]:
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for chain in chains:
        for a, b in pairwise(chain):
            below[a].append(b)
            above[b].append(a)
    return above, below


def _settle(
    rows: list[list[int]], widths: list[float], neighbours: tuple[list[list[int]], list[list[int]]]
) -> list[float]:
    """Sweep down and up: order each rank by where its neighbours are, then move it as near to them as fits."""
    above, below = neighbours
    x = [0.0] * len(widths)
    for row in rows:
        _pack(row, [0.0] * len(row), widths, x)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        axis = _mean(x, 0.0)
        for row in rows if down else reversed(rows):
            near = above if down else below
            wish = {i: _mean([x[j] for j in near[i]], axis) for i in row}
            row.sort(key=lambda i: wish[i])
            _pack(row, [wish[i] for i in row], widths, x)
    return x


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _pack(row: list[int], wish: list[float], widths: list[float], x: list[float]) -> None:
    """Give each of a row (in order) the x nearest to its wish, no two nearer than the gap.

    Pool adjacent violators: boxes that would overlap become one block at their mean wish.
    """
    blocks: list[tuple[float, int]] = []  # sum of wishes less offsets, boxes
    offset = 0.0
    offsets = []
    for k, i in enumerate(row):
        if k:
            offset += (widths[row[k - 1]] + widths[i]) / 2 + _GAP_X
        offsets.append(offset)
        blocks.append((wish[k] - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = (blocks[-1][0] + total, blocks[-1][1] + count)
    starts = [total / count for total, count in blocks for _ in range(count)]
    for k, i in enumerate(row):
        x[i] = starts[k] + offsets[k]


def _heights(boxes: Sequence[Box], extra_gap: Sequence[float]) -> tuple[list[float], list[float]]:
    """Upper and lower edge of each rank."""
    tallest = [0.0] * len(extra_gap)
    for box in boxes:
        tallest[box.rank] = max(tallest[box.rank], box.height)
    tops, bottoms, y = [], [], 0.0
    for height, gap in zip(tallest, extra_gap, strict=True):
        y += gap
        tops.append(y)
        bottoms.append(y + height)
        y += height + _GAP_Y
    return tops, bottoms


def _route(
    chain: list[int], boxes: Sequence[Box], ranks: list[int], x: list[float], tops: list[float], bottoms: list[float]
) -> list[tuple[float, float]]:
    source, target = chain[0], chain[-1]
    points = [(x[source], tops[ranks[source]] + boxes[source].height)]
    for lane in chain[1:-1]:
        points += [(x[lane], tops[ranks[lane]]), (x[lane], bottoms[ranks[lane]])]
    return [*points, (x[target], tops[ranks[target]])]
