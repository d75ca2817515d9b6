"""y[t, :] = table[tokens[t], :]

tokens i32 [T], table [V, H] float32 or bfloat16, y f32 [T, H]. Floor: T·H·(itemsize + 4) bytes.
"""

from __future__ import annotations

from oi.codegen.cpu.simd import Expr, Kernel, Simd, declare, dim, for_columns, load, parallel_rows, store
from oi.ir.types import DType

__all__ = ["embedding"]


def embedding(simd: Simd, vocabulary: int, hidden: int, dtype: DType) -> Kernel:
    def body() -> None:
        rows = dim()
        tokens, table, y = declare(
            tokens=(DType.I32, rows), table=(dtype, vocabulary, hidden), y=(DType.F32, rows, hidden)
        )

        def row(t: Expr) -> None:
            token = load(tokens, t)
            for_columns(hidden, simd.lanes, lambda i, n: store(y, load(table, token, i, lanes=n), t, i))

        parallel_rows(rows, row)

    return Kernel(f"embedding_{vocabulary}x{hidden}_{dtype.value}", body)
