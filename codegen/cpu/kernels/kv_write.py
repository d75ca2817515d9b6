"""kv'[slots[t] ÷ B, layer, 0|1, :, slots[t] mod B, :] = k[t]|v[t] where slots[t] ≥ 0

k and v f32 [T, K, D], slots i32 [T], kv f32 [N, L, 2, K, B, D], written in place. Floor: 16·T·K·D bytes.
"""

from __future__ import annotations

from oi.codegen.cpu.simd import (
    Expr,
    Kernel,
    Simd,
    T,
    cast,
    declare,
    dim,
    for_columns,
    integer,
    load,
    parallel_rows,
    store,
    when,
)
from oi.ir.types import DType

__all__ = ["kv_write", "slot_of"]


def slot_of(slot: Expr, page: int) -> tuple[Expr, Expr]:
    """(page number as int64: a cache may hold more than 2^31 elements, offset in the page)."""
    return T.bind(cast("int64", T.truncdiv(slot, page))), T.bind(T.truncmod(slot, page))


def kv_write(simd: Simd, layers: int, heads: int, page: int, size: int) -> Kernel:
    def body() -> None:
        rows, pages = dim(), dim()
        k, v, slots, kv = declare(
            k=(DType.F32, rows, heads, size),
            v=(DType.F32, rows, heads, size),
            slots=(DType.I32, rows),
            kv=(DType.F32, pages, layers, 2, heads, page, size),
        )
        layer = integer("layer")

        def row(t: Expr) -> None:
            slot = load(slots, t)
            with when(slot >= 0):
                number, offset = slot_of(slot, page)
                with T.serial(heads) as h:
                    for which, x in enumerate((k, v)):

                        def copy(i: Expr, n: int, x: Expr = x, which: int = which) -> None:
                            store(kv, load(x, t, h, i, lanes=n), number, layer, which, h, offset, i)

                        for_columns(size, simd.lanes, copy)

        parallel_rows(rows, row)

    return Kernel(f"kv_write_{layers}x{heads}x{page}x{size}", body)
