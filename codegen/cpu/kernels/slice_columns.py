"""y[t, j] = x[t, start + j]

x f32 [T, W], y f32 [T, size]. Floor: 8·T·size bytes.
"""

from __future__ import annotations

from oi.codegen.cpu.simd import Expr, Kernel, Simd, declare, dim, for_columns, load, parallel_rows, store
from oi.ir.types import DType

__all__ = ["slice_columns"]


def slice_columns(simd: Simd, width: int, start: int, size: int) -> Kernel:
    def body() -> None:
        rows = dim()
        x, y = declare(x=(DType.F32, rows, width), y=(DType.F32, rows, size))

        def row(t: Expr) -> None:
            for_columns(size, simd.lanes, lambda i, n: store(y, load(x, t, start + i, lanes=n), t, i))

        parallel_rows(rows, row)

    return Kernel(f"slice_columns_{width}_{start}_{size}", body)
