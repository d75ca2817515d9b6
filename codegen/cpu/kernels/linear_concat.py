"""y = [x·weights[0]ᵀ ‖ x·weights[1]ᵀ ‖ …]

x f32 [T, k], weights [n_i, k] float32 or bfloat16, y f32 [T, Σ n_i]; sums in float32.
Floor: few rows Σ n_i · k · itemsize bytes of weights, many rows 2·T·k·Σ n_i FLOP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from oi.codegen.cpu.kernels.gemm import Panel, Write, gemm, tile_of
from oi.codegen.cpu.kernels.skinny import dot_group, for_blocks, for_groups, group_of, store_group
from oi.codegen.cpu.simd import Buffer, Expr, Kernel, Simd, declare, dim, store_clipped
from oi.ir.types import DType

__all__ = ["linear_concat"]


def linear_concat(simd: Simd, sizes: Sequence[int], k: int, dtype: DType, max_rows: int | None) -> Kernel:
    """`max_rows` None is the variant for many rows."""

    def body() -> None:
        rows = dim()
        weights = {f"weight{i}": (dtype, n, k) for i, n in enumerate(sizes)}
        x, *ws, y = declare(x=(DType.F32, rows, k), **weights, y=(DType.F32, rows, sum(sizes)))
        if max_rows is None:
            _many_rows(simd, sizes, x, ws, y)
        else:
            _few_rows(simd, sizes, x, ws, y, max_rows)

    shape = f"{'_'.join(map(str, sizes))}x{k}_{dtype.value}"
    return Kernel(f"linear_{shape}_{'many' if max_rows is None else max_rows}", body)


def _few_rows(simd: Simd, sizes: Sequence[int], x: Buffer, weights: Sequence[Buffer], y: Buffer, rows: int) -> None:
    group = group_of(simd, rows)

    def block(which: int, first: Expr, top: Expr) -> None:
        start, size = sum(sizes[:which]), sizes[which]

        def step(offset: Expr, n: Expr) -> None:
            values = dot_group(simd, group, x, top, weights[which], n)
            store_group(y, values, top, start + n, start + size if size % group.weights else None)

        for_groups(group, size, first, step)

    for_blocks(group, x.shape[0], sizes, block)


def _many_rows(simd: Simd, sizes: Sequence[int], x: Buffer, weights: Sequence[Buffer], y: Buffer) -> None:
    vectors = tile_of(simd).vectors
    width = vectors * simd.lanes

    def source(weight: Buffer, i: Expr) -> Panel:
        return Panel([weight] * vectors, [i * width + v * simd.lanes for v in range(vectors)])

    def write(which: int, i: Expr) -> Write:
        start, end = sum(sizes[:which]), sum(sizes[: which + 1])

        def row(r: Expr, values: Sequence[Expr]) -> None:
            for v, value in enumerate(values):
                store_clipped(y, value, end if sizes[which] % width else None, r, start + i * width + v * simd.lanes)

        return row

    panels: list[tuple[int, Callable[[Expr], Panel], Callable[[Expr], Write]]] = [
        (-(-n // width), partial(source, w), partial(write, which))
        for which, (n, w) in enumerate(zip(sizes, weights, strict=True))
    ]
    gemm(simd, x, panels)
