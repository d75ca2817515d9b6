"""lp[r, v] = logits[r, v] - logsumexp(logits[r, :])

logits f32 [R, V], token i32 [R]; of the token lp f32 [R], of the k most likely tokens i32 [R, k] and lp f32 [R, k],
in falling order, the lowest token first on a tie. Floor: 8·R·V bytes (a maximum first, then the sum and the best).
"""

from __future__ import annotations

from oi.codegen.cpu.simd import (
    Buffer,
    Expr,
    Kernel,
    Register,
    Simd,
    T,
    declare,
    dim,
    exp,
    for_columns,
    horizontal_max,
    load,
    log,
    max_columns,
    scratch,
    splat,
    store,
    sum_columns,
    when,
)
from oi.ir.types import DType

__all__ = ["log_probs"]


def log_probs(simd: Simd, vocabulary: int, k: int) -> Kernel:
    def body() -> None:
        rows = dim()
        logits, token, chosen, tokens, top = declare(
            logits=(DType.F32, rows, vocabulary),
            token=(DType.I32, rows),
            chosen=(DType.F32, rows),
            top_tokens=(DType.I32, rows, k),
            top=(DType.F32, rows, k),
        )
        with T.parallel(rows) as r:
            best, where = scratch(k), scratch(k, dtype="int32")
            highest = max_columns(vocabulary, simd.lanes, lambda i, n: load(logits, r, i, lanes=n))
            total = sum_columns(
                vocabulary, simd.lanes, lambda i, n: exp(load(logits, r, i, lanes=n) - splat(highest, n))
            )
            log_sum = T.bind(highest + log(total))
            _find_best(simd, vocabulary, k, logits, r, best, where)
            store(chosen, load(logits, r, load(token, r)) - log_sum, r)
            with T.serial(k) as i:
                store(tokens, load(where, i), r, i)
                store(top, load(best, i) - log_sum, r, i)

    return Kernel(f"log_probs_{vocabulary}_{k}", body)


def _find_best(simd: Simd, size: int, k: int, logits: Buffer, r: Expr, best: Buffer, where: Buffer) -> None:
    """Keep the k largest in order; a vector is looked into only if it holds one that belongs among them."""
    with T.serial(k) as i:
        store(best, T.float32("-inf"), i)
        store(where, T.int32(0), i)
    worst = Register(T.float32("-inf"))

    def insert(value: Expr, v: Expr) -> None:
        """Later tokens go behind equal ones."""
        place = Register(T.int32(k - 1))
        with T.While(T.And(place.value > 0, best[T.max(place.value - 1, 0)] < value)):
            store(best, load(best, place.value - 1), place.value)
            store(where, load(where, place.value - 1), place.value)
            place.add(T.int32(-1))
        store(best, value, place.value)
        store(where, v, place.value)
        worst.set(load(best, k - 1))

    def look(start: Expr, width: int) -> None:
        with when(horizontal_max(load(logits, r, start, lanes=width)) > worst.value), T.serial(width) as lane:
            value = load(logits, r, start + lane)
            with when(value > worst.value):
                insert(value, start + lane)

    for_columns(size, simd.lanes, look)
