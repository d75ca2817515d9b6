"""y[i] = x[i]·cos[i] - x[i + D/2]·sin[i];  y[i + D/2] = x[i + D/2]·cos[i] + x[i]·sin[i]

x and y f32 [T, heads, D], angles f32 [T, D]: cosines, then sines. Floor: 8·T·heads·D bytes.
"""

from __future__ import annotations

from collections.abc import Callable

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
    parallel_rows,
    store,
)
from oi.ir.types import DType

__all__ = ["rope", "rotate"]


def rotate(
    simd: Simd,
    size: int,
    x: Callable[[Expr, int], Expr],
    angles: Buffer,
    t: Expr,
    write: Callable[[Expr, Expr], None],
) -> None:
    """Rotate one head: `x(start, width)` gives its columns, `write(value, start)` takes the result's."""
    half = size // 2

    def step(i: Expr, n: int) -> None:
        low, high = T.bind(x(i, n)), T.bind(x(half + i, n))
        cosine, sine = load(angles, t, i, lanes=n), load(angles, t, half + i, lanes=n)
        write(low * cosine - high * sine, i)
        write(high * cosine + low * sine, half + i)

    for_columns(half, simd.lanes, step)


def rope(simd: Simd, heads: int, size: int) -> Kernel:
    def body() -> None:
        rows = dim()
        x, angles, y = declare(
            x=(DType.F32, rows, heads, size), angles=(DType.F32, rows, size), y=(DType.F32, rows, heads, size)
        )

        def row(t: Expr) -> None:
            with T.serial(heads) as h:
                rotate(
                    simd,
                    size,
                    lambda i, n: load(x, t, h, i, lanes=n),
                    angles,
                    t,
                    lambda value, i: store(y, value, t, h, i),
                )

        parallel_rows(rows, row)

    return Kernel(f"rope_{heads}x{size}", body)
