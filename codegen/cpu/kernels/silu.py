"""y = x / (1 + exp(-x))

All f32 [T, …]. Floor: 8·T·Π… bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from oi.codegen.cpu.kernels.elementwise import elementwise
from oi.codegen.cpu.simd import Kernel, Simd, sigmoid

__all__ = ["silu"]


def silu(simd: Simd, trailing: Sequence[int]) -> Kernel:
    return elementwise("silu", simd, trailing, ("x",), lambda x: x * sigmoid(x))
