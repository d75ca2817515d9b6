"""y[t, i] = scale·cos(positions[t]·inv_freq[i]);  y[t, D/2 + i] = scale·sin(same)

positions i32 [T], inv_freq f32 [D/2], y f32 [T, D]. Floor: T·D calls of libm's cosf or sinf, once for all layers.
"""

from __future__ import annotations

from oi.codegen.cpu.kernels.rms_norm import eps_name
from oi.codegen.cpu.simd import Expr, Kernel, Simd, T, cast, declare, dim, load, parallel_rows, store
from oi.ir.types import DType

__all__ = ["rope_angles"]


def rope_angles(simd: Simd, half: int, scale: float) -> Kernel:
    def body() -> None:
        rows = dim()
        positions, inv_freq, y = declare(
            positions=(DType.I32, rows), inv_freq=(DType.F32, half), y=(DType.F32, rows, 2 * half)
        )

        def row(t: Expr) -> None:
            position = T.bind(cast("float32", load(positions, t)))
            with T.serial(half) as i:
                angle = T.bind(position * inv_freq[i])
                store(y, T.cos(angle) * T.float32(scale), t, i)
                store(y, T.sin(angle) * T.float32(scale), t, half + i)

        parallel_rows(rows, row)

    return Kernel(f"rope_angles_{half}_{eps_name(scale)}", body)
