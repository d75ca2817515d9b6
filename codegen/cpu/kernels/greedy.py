"""token[r] = argmax_v logits[r, v], the lowest v on a tie

logits f32 [R, V], token i32 [R]. Floor: 4·R·V bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from oi.codegen.cpu.simd import (
    Expr,
    Kernel,
    Register,
    Simd,
    T,
    declare,
    dim,
    horizontal_max,
    load,
    select,
    splat,
    store,
    when,
)
from oi.ir.types import DType

__all__ = ["argmax", "greedy"]


def argmax(simd: Simd, size: int, row: Callable[[Expr, int], Expr]) -> tuple[Expr, Expr]:
    """(largest, its lowest index) of the line whose columns `row(start, width)` loads.

    Each lane keeps its own first largest; of the lanes that hold the largest, the lowest index wins.
    """
    lanes = simd.lanes if size >= simd.lanes else 1
    best = Register(row(0, lanes))
    where = Register(T.Ramp(T.int32(0), 1, lanes) if lanes > 1 else T.int32(0))
    with T.serial(1, size // lanes) as i:
        value = T.bind(row(i * lanes, lanes))
        better = value > best.value
        index = T.Ramp(i * lanes, 1, lanes) if lanes > 1 else i
        where.set(select(better, index, where.value))
        best.set(select(better, value, best.value))
    largest = Register(horizontal_max(best.value))
    first = select(best.value == splat(largest.value, lanes), where.value, splat(T.int32(size), lanes))
    lowest = Register(-horizontal_max(T.bind(-first)))
    for v in range(size - size % lanes, size):
        value = T.bind(row(v, 1))
        with when(value > largest.value):
            largest.set(value)
            lowest.set(T.int32(v))
    return T.bind(largest.value), T.bind(lowest.value)


def greedy(simd: Simd, vocabulary: int) -> Kernel:
    def body() -> None:
        rows = dim()
        logits, token = declare(logits=(DType.F32, rows, vocabulary), token=(DType.I32, rows))
        with T.parallel(rows) as r:
            _, best = argmax(simd, vocabulary, lambda i, n: load(logits, r, i, lanes=n))
            store(token, best, r)

    return Kernel(f"greedy_{vocabulary}", body)
