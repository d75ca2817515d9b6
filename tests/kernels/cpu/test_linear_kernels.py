"""linear, linear_concat, swiglu_linear: every variant, odd shapes, both weight dtypes, unaligned weights."""

from __future__ import annotations

import numpy as np
import pytest

from oi.codegen.cpu.target import CpuTarget
from oi.ir import ops
from oi.ir.types import DType, T
from tests.kernels.cpu.harness import TARGETS, check, f32, run, weight

ROWS = (1, 2, 3, 8, 21, 110, 517)
"""One of each variant, tiles cut short, more than one block of packed rows."""


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
@pytest.mark.parametrize("target", TARGETS)
def test_linear(target: CpuTarget, dtype: DType) -> None:
    rng = np.random.default_rng()
    n, k = (45, 75) if dtype is DType.BF16 else (64, 160)
    w = weight(dtype, rng.standard_normal((n, k)))
    for rows in ROWS:
        x = f32(rng.standard_normal((rows, k)), T)
        check(target, ops.Linear(dtype=DType.F32), x, w, atol=1e-4)


@pytest.mark.parametrize("target", TARGETS[:2])
def test_linear_concat(target: CpuTarget) -> None:
    rng = np.random.default_rng()
    weights = [weight(DType.BF16, rng.standard_normal((n, 64))) for n in (64, 17, 32)]
    for rows in ROWS:
        x = f32(rng.standard_normal((rows, 64)), T)
        check(target, ops.LinearConcat(), x, *weights, atol=1e-4)


@pytest.mark.parametrize("target", TARGETS[:2])
def test_swiglu_linear(target: CpuTarget) -> None:
    rng = np.random.default_rng()
    gate, up = (weight(DType.BF16, rng.standard_normal((41, 100))) for _ in range(2))
    for rows in ROWS:
        x = f32(rng.standard_normal((rows, 100)), T)
        check(target, ops.SwigluLinear(), x, gate, up, atol=1e-3, rtol=1e-4)


def test_row_results_do_not_depend_on_other_rows() -> None:
    """Within a variant, a row's bits are the same whatever rows run beside it."""
    rng = np.random.default_rng()
    target = CpuTarget()
    w, x = weight(DType.BF16, rng.standard_normal((45, 75))), rng.standard_normal((20, 75))
    (whole,) = run(target, ops.Linear(dtype=DType.F32), f32(x, T), w)
    (part,) = run(target, ops.Linear(dtype=DType.F32), f32(x[3:14], T), w)
    np.testing.assert_array_equal(part, whole[3:14])
