"""y[m, n] = Σ_k x[m, k] · weight[n, k]

x f32 [T, k], weight [n, k] float32 or bfloat16, y f32 [T, n]; sums in float32.
Floor: few rows n · k · itemsize bytes of weights, many rows 2·T·k·n FLOP.
"""

from __future__ import annotations

from oi.codegen.cpu.kernels.linear_concat import linear_concat
from oi.codegen.cpu.simd import Kernel, Simd
from oi.ir.types import DType

__all__ = ["linear"]


def linear(simd: Simd, n: int, k: int, dtype: DType, max_rows: int | None) -> Kernel:
    """`max_rows` None is the variant for many rows."""
    return linear_concat(simd, [n], k, dtype, max_rows)
