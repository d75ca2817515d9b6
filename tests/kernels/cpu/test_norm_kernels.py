"""rms_norm, add_rms_norm: both ranks, sizes that are no multiple of a vector, both weight dtypes."""

from __future__ import annotations

import numpy as np
import pytest

from oi.codegen.cpu.target import CpuTarget
from oi.ir import ops
from oi.ir.types import DType, T
from tests.kernels.cpu.harness import TARGETS, check, f32, weight

EPS = 1e-6


@pytest.mark.parametrize(("trailing", "dtype"), [((77,), DType.BF16), ((3, 40), DType.F32)])
@pytest.mark.parametrize("target", TARGETS[:2])
def test_rms_norm(target: CpuTarget, trailing: tuple[int, ...], dtype: DType) -> None:
    rng = np.random.default_rng()
    for rows in (1, 4, 9):
        x = f32(rng.standard_normal((rows, *trailing)) * rng.choice([1e-4, 1, 100], (rows, *[1] * len(trailing))), T)
        check(target, ops.RmsNorm(eps=EPS), x, weight(dtype, rng.standard_normal(trailing[-1])))


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
@pytest.mark.parametrize("target", TARGETS[:2])
def test_add_rms_norm(target: CpuTarget, dtype: DType) -> None:
    rng = np.random.default_rng()
    for rows in (1, 4, 9):
        x, residual = (f32(rng.standard_normal((rows, 75)), T) for _ in range(2))
        check(target, ops.AddRmsNorm(eps=EPS), x, residual, weight(dtype, rng.standard_normal(75)))
