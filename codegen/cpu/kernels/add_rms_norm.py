"""z = x + residual;  y = rms_norm(z, weight)

x, residual, z, y f32 [T, H], weight [H] float32 or bfloat16. Floor: 16·T·H bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from oi.codegen.cpu.kernels.rms_norm import eps_name, normalise
from oi.codegen.cpu.simd import Expr, Kernel, Simd, declare, dim, for_columns, load, nest, parallel_rows, store
from oi.ir.types import DType

__all__ = ["add_rms_norm"]


def add_rms_norm(simd: Simd, trailing: Sequence[int], dtype: DType, eps: float) -> Kernel:
    *middle, size = trailing

    def body() -> None:
        rows = dim()
        full = (DType.F32, rows, *trailing)
        x, residual, weight, z, y = declare(x=full, residual=full, weight=(dtype, size), z=full, y=full)

        def line(*outer: Expr) -> None:
            def step(i: Expr, n: int) -> None:
                store(z, load(x, *outer, i, lanes=n) + load(residual, *outer, i, lanes=n), *outer, i)

            for_columns(size, simd.lanes, step)
            normalise(simd, size, eps, z, weight, y, *outer)

        parallel_rows(rows, lambda t: nest(middle, lambda *inner: line(t, *inner)))

    return Kernel(f"add_rms_norm_{'x'.join(map(str, trailing))}_{dtype.value}_{eps_name(eps)}", body)
