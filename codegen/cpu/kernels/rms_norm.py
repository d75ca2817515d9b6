"""y = x / sqrt(mean(x², last dim) + eps) ∘ weight

x and y f32 [T, H] or [T, heads, D], weight [H] or [D] float32 or bfloat16. Floor: 8·T·H bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oi.codegen.cpu.simd import (
    Buffer,
    Expr,
    Kernel,
    Simd,
    T,
    declare,
    dim,
    for_columns,
    load,
    nest,
    parallel_rows,
    splat,
    store,
    sum_columns,
)
from oi.ir.types import DType

__all__ = ["inverse_rms", "normalise", "rms_norm"]


def inverse_rms(simd: Simd, size: int, eps: float, x: Callable[[Expr, int], Expr]) -> Expr:
    """1 / sqrt(mean(x²) + eps) of the line whose columns `x(start, width)` loads."""

    def square(i: Expr, n: int) -> Expr:
        value = x(i, n)
        return value * value

    total = sum_columns(size, simd.lanes, square)
    return T.bind(T.float32(1) / T.sqrt(total * T.float32(1 / size) + T.float32(eps)))


def normalise(simd: Simd, size: int, eps: float, x: Buffer, weight: Buffer, y: Buffer, *outer: Expr) -> None:
    """y[outer] = x[outer] / rms ∘ weight, over the last dimension."""
    scale = inverse_rms(simd, size, eps, lambda i, n: load(x, *outer, i, lanes=n))

    def step(i: Expr, n: int) -> None:
        store(y, load(x, *outer, i, lanes=n) * splat(scale, n) * load(weight, i, lanes=n), *outer, i)

    for_columns(size, simd.lanes, step)


def rms_norm(simd: Simd, trailing: Sequence[int], dtype: DType, eps: float) -> Kernel:
    *middle, size = trailing

    def body() -> None:
        rows = dim()
        x, weight, y = declare(x=(DType.F32, rows, *trailing), weight=(dtype, size), y=(DType.F32, rows, *trailing))
        parallel_rows(rows, lambda t: nest(middle, lambda *inner: normalise(simd, size, eps, x, weight, y, t, *inner)))

    return Kernel(f"rms_norm_{'x'.join(map(str, trailing))}_{dtype.value}_{eps_name(eps)}", body)


def eps_name(eps: float) -> str:
    """A float's exact value as part of a symbol."""
    return eps.hex().replace(".", "_").replace("-", "m").replace("+", "")
