"""Products of a few rows with weights that stream from memory once: what the linear kernels share for decode.

For one row of x, one weight row at a time is a single sequential stream, which the prefetchers follow at full
bandwidth. For more, loads of x would bound the loop, so a group of weight rows shares them. The prefetchers lose
track of several streams (a third of the bandwidth is left), so the loop itself asks for the group after next.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oi.codegen.cpu.simd import (
    Buffer,
    Expr,
    Register,
    Simd,
    T,
    for_columns,
    horizontal_sum,
    load,
    prefetch,
    splat,
    store,
    when,
)

__all__ = ["BLOCK", "Group", "dot_group", "for_blocks", "for_groups", "group_of", "row_variants", "store_group"]

BLOCK = 24
"""Weight rows of one parallel item."""
AHEAD = 2
"""Groups from a load to its prefetch."""


@dataclass(frozen=True)
class Group:
    """The accumulators of one pass over k: `weights` weight rows × `rows` rows of x × `unroll`."""

    rows: int
    weights: int
    unroll: int


_WEIGHTS = {32: {2: 8, 4: 4, 8: 3}, 16: {2: 4, 4: 3}}
"""By registers and rows of x: how many weight rows go together (measured; all divide BLOCK)."""
_FEW_ROWS = {32: 96, 16: 64}
"""By registers: up to how many rows these products are quicker than those from packed panels (measured)."""


def row_variants(simd: Simd) -> tuple[int, ...]:
    """Row counts that kernels are specialised for: each reads the weights from memory once."""
    return (1, 2, 4, _FEW_ROWS[simd.registers])


def group_of(simd: Simd, rows: int) -> Group:
    """At least half of the registers accumulate, which hides the latency of the multiply-adds.

    A block of weights meets rows beyond the group's while it is in cache.
    """
    if rows == 1:
        return Group(rows, 1, simd.registers // 2)
    weights = _WEIGHTS[simd.registers]
    rows = min(rows, max(weights))
    return Group(rows, weights[rows], 1)


def dot_group(simd: Simd, group: Group, x: Buffer, top: Expr, weight: Buffer, first: Expr) -> list[list[Expr]]:
    """Σ_k x[top + m, k] · weight[first + w, k] for each w, m of the group.

    Rows of x from x.shape[0] on repeat the last one, weight rows past the end likewise.
    """
    used, (n, size), lanes = x.shape[0], map(int, weight.shape), simd.lanes
    ms = [T.bind(T.min(top + m, used - 1)) if m else top for m in range(group.rows)]
    ns = [first + w if n % group.weights == 0 else T.bind(T.min(first + w, n - 1)) for w in range(group.weights)]
    sums = [[[Register(splat(0.0, lanes)) for _ in range(group.unroll)] for _ in ms] for _ in ns]
    rest = [[Register(splat(0.0, 1)) for _ in ms] for _ in ns]

    def step(start: Expr, u: int) -> None:
        ws = [load(weight, n, start, lanes=lanes) for n in ns]
        for j, m in enumerate(ms):
            value = load(x, m, start, lanes=lanes)
            for i, w in enumerate(ws):
                sums[i][j][u].add(value * w)

    def tail(start: Expr, width: int) -> None:
        if width == lanes:
            return step(start, 0)
        for i, n in enumerate(ns):
            w = load(weight, n, start, lanes=width)
            for j, m in enumerate(ms):
                rest[i][j].add(horizontal_sum(load(x, m, start, lanes=width) * w))
        return None

    chunk = lanes * group.unroll
    if size >= chunk:
        # LLVM must not know the trip count: it would unroll the loop whole and sort the loads as it likes, and the
        # prefetchers would lose the stream (7 GB/s instead of 29).
        trips = size // chunk
        with T.serial(T.min(T.int64(trips), used * trips)) as i:
            if group.rows > 1:
                prefetch(weight, first + AHEAD * group.weights, i * chunk * group.weights, count=chunk * group.weights)
            for u in range(group.unroll):
                step(i * chunk + u * lanes, u)
    done = size - size % chunk
    for_columns(size - done, lanes, lambda start, width: tail(done + start, width))
    return [
        [T.bind(horizontal_sum(_total(s)) + r.value) for s, r in zip(ss, rs, strict=True)]
        for ss, rs in zip(sums, rest, strict=True)
    ]


def _total(registers: Sequence[Register]) -> Expr:
    values = [r.value for r in registers]
    while len(values) > 1:
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def store_group(y: Buffer, values: Sequence[Sequence[Expr]], top: Expr, column: Expr, end: int | None) -> None:
    """y[top + m, column + w] = values[w][m] for the rows that y has and, unless None, the columns before `end`."""
    for w, row in enumerate(values):
        with when(column + w < end if end is not None and w else True):
            for m, value in enumerate(row):
                with when(top + m < y.shape[0] if m else True):
                    store(y, value, top + m, column + w)


def for_blocks(group: Group, rows: Expr, sizes: Sequence[int], body: Callable[[int, Expr, Expr], None]) -> None:
    """Deal rows of several weights to the threads: `body(weight, its first row, first row of x)`.

    Every thread gets one contiguous run of blocks, so that it reads one contiguous run of memory.
    """
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // BLOCK))
    with T.parallel(starts[-1]) as item:
        for which, (start, end) in enumerate(itertools.pairwise(starts)):
            with when(T.And(item >= start, item < end)):
                first = T.bind((item - start) * BLOCK)
                with T.serial((rows + group.rows - 1) // group.rows) as i:
                    body(which, first, T.bind(i * group.rows))


def for_groups(group: Group, size: int, first: Expr, body: Callable[[Expr, Expr], None]) -> None:
    """`body(row in the block, row of the weight)` for each group of the block that begins at `first`."""
    with T.serial(BLOCK // group.weights) as g:
        offset = T.bind(g * group.weights)
        with when(first + offset < size if size % BLOCK else True):
            body(offset, T.bind(first + offset))
