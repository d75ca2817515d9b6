"""y = silu(x·gateᵀ) ∘ (x·upᵀ)

x f32 [T, k], gate and up [n, k] float32 or bfloat16, y f32 [T, n]; sums in float32.
Floor: few rows 2 · n · k · itemsize bytes of weights, many rows 4·T·k·n FLOP.
"""

from __future__ import annotations

from collections.abc import Sequence

from oi.codegen.cpu.kernels.gemm import Panel, Write, gemm
from oi.codegen.cpu.kernels.skinny import BLOCK, dot_group, for_blocks, for_groups, group_of, store_group
from oi.codegen.cpu.simd import (
    Buffer,
    Expr,
    Kernel,
    Simd,
    T,
    declare,
    dim,
    load,
    scratch,
    sigmoid,
    store,
    store_clipped,
)
from oi.ir.types import DType

__all__ = ["swiglu_linear"]


def swiglu_linear(simd: Simd, n: int, k: int, dtype: DType, max_rows: int | None) -> Kernel:
    """`max_rows` None is the variant for many rows."""

    def body() -> None:
        rows = dim()
        x, gate, up, y = declare(x=(DType.F32, rows, k), gate=(dtype, n, k), up=(dtype, n, k), y=(DType.F32, rows, n))
        if max_rows is None:
            _many_rows(simd, x, gate, up, y)
        else:
            _few_rows(simd, x, gate, up, y, max_rows)

    return Kernel(f"swiglu_linear_{n}x{k}_{dtype.value}_{'many' if max_rows is None else max_rows}", body)


def _swiglu(gate: Expr, up: Expr) -> Expr:
    return gate * sigmoid(gate) * up


def _few_rows(simd: Simd, x: Buffer, gate: Buffer, up: Buffer, y: Buffer, rows: int) -> None:
    """A block of the gate, then the same block of up: two long streams instead of rows in turn."""

    group, n = group_of(simd, rows), int(gate.shape[0])

    def block(which: int, first: Expr, top: Expr) -> None:
        gates = scratch(BLOCK, group.rows)

        def project_gate(offset: Expr, row: Expr) -> None:
            for w, values in enumerate(dot_group(simd, group, x, top, gate, row)):
                for m, value in enumerate(values):
                    store(gates, value, offset + w, m)

        def combine(offset: Expr, row: Expr) -> None:
            ups = dot_group(simd, group, x, top, up, row)
            values = [
                [T.bind(_swiglu(load(gates, offset + w, m), value)) for m, value in enumerate(values)]
                for w, values in enumerate(ups)
            ]
            store_group(y, values, top, row, n if n % group.weights else None)

        for_groups(group, n, first, project_gate)
        for_groups(group, n, first, combine)

    for_blocks(group, x.shape[0], [n], block)


def _many_rows(simd: Simd, x: Buffer, gate: Buffer, up: Buffer, y: Buffer) -> None:
    """A panel is one vector of gate columns beside one of up columns, so that a tile holds both operands of ∘."""
    n, lanes = int(gate.shape[0]), simd.lanes

    def source(i: Expr) -> Panel:
        return Panel([gate, up], [i * lanes, i * lanes])

    def write(i: Expr) -> Write:
        def row(r: Expr, values: Sequence[Expr]) -> None:
            store_clipped(y, T.bind(_swiglu(*map(T.bind, values))), n if n % lanes else None, r, i * lanes)

        return row

    gemm(simd, x, [(-(-n // lanes), source, write)])
