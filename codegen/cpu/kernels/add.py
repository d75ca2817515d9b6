"""z = x + y

All f32 [T, …]. Floor: 12·T·Π… bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from oi.codegen.cpu.kernels.elementwise import elementwise
from oi.codegen.cpu.simd import Kernel, Simd

__all__ = ["add"]


def add(simd: Simd, trailing: Sequence[int]) -> Kernel:
    return elementwise("add", simd, trailing, ("x", "y"), lambda x, y: x + y)
