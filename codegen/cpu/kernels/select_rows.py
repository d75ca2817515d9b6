"""y[r, :] = x[rows[r], :]

x f32 [T, H], rows i32 [R], y f32 [R, H]. Floor: 8·R·H bytes.
"""

from __future__ import annotations

from oi.codegen.cpu.simd import Expr, Kernel, Simd, declare, dim, for_columns, load, parallel_rows, store
from oi.ir.types import DType

__all__ = ["select_rows"]


def select_rows(simd: Simd, columns: int) -> Kernel:
    def body() -> None:
        tokens, selected = dim(), dim()
        x, rows, y = declare(
            x=(DType.F32, tokens, columns), rows=(DType.I32, selected), y=(DType.F32, selected, columns)
        )

        def row(r: Expr) -> None:
            t = load(rows, r)
            for_columns(columns, simd.lanes, lambda i, n: store(y, load(x, t, i, lanes=n), r, i))

        parallel_rows(selected, row)

    return Kernel(f"select_rows_{columns}", body)
