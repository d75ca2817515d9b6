"""Products of a few rows with weights that stream from memory once: what the linear kernels share for decode.

One row of weights at a time: a single sequential stream is what the prefetchers follow best (several rows at once
halved the bandwidth), with enough accumulators to hide the latency of the multiply-adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oi.codegen.cpu.simd import (
    Buffer,
    Expr,
    Register,
    Simd,
    T,
    for_columns,
    horizontal_sum,
    load,
    splat,
    store,
    when,
)

__all__ = ["BLOCK", "ROW_VARIANTS", "dot_rows", "for_blocks", "store_rows"]

ROW_VARIANTS = (1, 2, 4, 8)
"""Row counts that kernels are specialised for: each reads the weights once."""
BLOCK = 16
"""Weight rows of one parallel item."""


def dot_rows(simd: Simd, rows: int, used: Expr, x: Buffer, weight: Buffer, n: Expr) -> list[Expr]:
    """[Σ_k x[m, k] · weight[n, k] for m in range(rows)]; rows from `used` on repeat the last one."""
    size, lanes = int(x.shape[1]), simd.lanes
    unroll = max(1, min(8, simd.registers // 2 // rows))
    sums = [[Register(splat(0.0, lanes)) for _ in range(unroll)] for _ in range(rows)]
    rest = [Register(splat(0.0, 1)) for _ in range(rows)]
    clamped = [T.bind(T.min(T.int64(m), used - 1)) if m else T.int64(0) for m in range(rows)]

    def step(start: Expr, unrolled: int) -> None:
        w = load(weight, n, start, lanes=lanes)
        for m in range(rows):
            sums[m][unrolled].add(load(x, clamped[m], start, lanes=lanes) * w)

    def tail(start: Expr, width: int) -> None:
        if width == lanes:
            return step(start, 0)
        w = load(weight, n, start, lanes=width)
        for m in range(rows):
            rest[m].add(horizontal_sum(load(x, clamped[m], start, lanes=width) * w))
        return None

    chunk = lanes * unroll
    if size >= chunk:
        with T.serial(size // chunk) as i:
            for u in range(unroll):
                step(i * chunk + u * lanes, u)
    done = size - size % chunk
    for_columns(size - done, lanes, lambda start, width: tail(done + start, width))
    return [T.bind(horizontal_sum(_total(s)) + r.value) for s, r in zip(sums, rest, strict=True)]


def _total(registers: Sequence[Register]) -> Expr:
    values = [r.value for r in registers]
    while len(values) > 1:
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def store_rows(y: Buffer, values: Sequence[Expr], used: Expr, column: Expr) -> None:
    """y[m, column] = values[m] for m < used."""
    for m, value in enumerate(values):
        if m == 0:
            store(y, value, m, column)
        else:
            with when(m < used):
                store(y, value, m, column)


def for_blocks(sizes: Sequence[int], body: Callable[[int, Expr, int], None]) -> None:
    """Deal rows of several weights to the threads: `body(weight, first, count)` for each block of rows.

    Every thread gets one contiguous run of blocks, so that it reads one contiguous run of memory.
    """
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // BLOCK))
    with T.parallel(starts[-1]) as item:
        for which, size in enumerate(sizes):
            with when(T.And(item >= starts[which], item < starts[which + 1])):
                first = T.bind((item - starts[which]) * BLOCK)
                if size % BLOCK == 0:
                    body(which, first, BLOCK)
                else:
                    body(which, first, T.bind(T.min(BLOCK, size - first)))
