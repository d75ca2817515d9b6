"""embedding, add, mul, silu, select_rows, slice_columns."""

from __future__ import annotations

import numpy as np
import pytest

from oi.codegen.cpu.target import CpuTarget
from oi.ir import ops
from oi.ir.op import Op
from oi.ir.types import DType, R, T
from tests.kernels.cpu.harness import TARGETS, check, f32, i32, weight


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
@pytest.mark.parametrize("target", TARGETS)
def test_embedding(target: CpuTarget, dtype: DType) -> None:
    rng = np.random.default_rng()
    table = weight(dtype, rng.standard_normal((30, 45)))
    for rows in (1, 9):
        check(target, ops.Embedding(dtype=DType.F32), i32(rng.integers(0, 30, rows), T), table, atol=0, rtol=0)


@pytest.mark.parametrize("trailing", [(45,), (3, 32)])
@pytest.mark.parametrize("op", [ops.Add(), ops.Mul(), ops.Silu()], ids=lambda op: op.name)
@pytest.mark.parametrize("target", TARGETS[:2])
def test_elementwise(target: CpuTarget, op: Op, trailing: tuple[int, ...]) -> None:
    rng = np.random.default_rng()
    for rows in (1, 9):
        operands = [f32(rng.standard_normal((rows, *trailing)) * 20, T) for _ in op.operands]
        check(target, op, *operands, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("target", TARGETS[:2])
def test_silu_of_extremes(target: CpuTarget) -> None:
    x = np.array([[0.0, -0.0, 87.3, -87.3, -88, -104, -3e38, 3e38, 1e-30, -1e-30]])
    check(target, ops.Silu(), f32(x, T), atol=1e-36, rtol=1e-5)


@pytest.mark.parametrize("target", TARGETS[:2])
def test_select_rows(target: CpuTarget) -> None:
    rng = np.random.default_rng()
    for rows in (1, 9):
        x = f32(rng.standard_normal((7, 45)), T)
        check(target, ops.SelectRows(), x, i32(rng.integers(0, 7, rows), R), atol=0, rtol=0)


@pytest.mark.parametrize("target", TARGETS[:2])
def test_slice_columns(target: CpuTarget) -> None:
    rng = np.random.default_rng()
    for rows in (1, 9):
        x = f32(rng.standard_normal((rows, 70)), T)
        check(target, ops.SliceColumns(start=13, size=45), x, atol=0, rtol=0)
