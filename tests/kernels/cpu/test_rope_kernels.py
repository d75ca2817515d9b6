"""rope_angles, rope, kv_write, qkv_norm_rope_write: padding slots, pages of odd size, untouched cache entries."""

from __future__ import annotations

import numpy as np
import pytest

from oi.codegen.cpu.target import CpuTarget
from oi.ir import ops
from oi.ir.reference import REFERENCE
from oi.ir.types import DType, N, T
from tests.kernels.cpu.harness import TARGETS, Operand, check, f32, i32, run, weight

LAYERS, HEADS, PAGE, SIZE, PAGES = 3, 2, 5, 24, 4


@pytest.mark.parametrize("target", TARGETS[:2])
def test_rope_angles(target: CpuTarget) -> None:
    """Against the reference in float32: at position 40,000 the angle itself is rounded by 2^-9."""
    rng = np.random.default_rng()
    positions, inv_freq = i32(rng.integers(0, 40_000, 9), T), f32(1e6 ** -(np.arange(12) / 12))
    op = ops.RopeAngles(scale=1.3)
    (found,) = run(target, op, positions, inv_freq)
    (expected,) = REFERENCE[ops.RopeAngles](op, positions.array, inv_freq.array)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS[:2])
def test_rope(target: CpuTarget) -> None:
    rng = np.random.default_rng()
    for rows in (1, 9):
        x, angles = f32(rng.standard_normal((rows, 3, 24)), T), f32(rng.standard_normal((rows, 24)), T)
        check(target, ops.Rope(), x, angles)


def _slots(rng: np.random.Generator, rows: int) -> Operand:
    slots = rng.permutation(PAGES * PAGE)[:rows]
    slots[rng.random(rows) < 0.3] = -1
    return i32(slots, T)


def _cache(rng: np.random.Generator) -> Operand:
    return f32(rng.standard_normal((PAGES, LAYERS, 2, HEADS, PAGE, SIZE)), N)


@pytest.mark.parametrize("target", TARGETS[:2])
def test_kv_write(target: CpuTarget) -> None:
    rng = np.random.default_rng()
    for rows, layer in ((1, 0), (4, 2), (11, 1)):
        k, v = (f32(rng.standard_normal((rows, HEADS, SIZE)), T) for _ in range(2))
        check(target, ops.KvWrite(layer=layer), k, v, _slots(rng, rows), _cache(rng), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
@pytest.mark.parametrize("target", TARGETS[:2])
def test_qkv_norm_rope_write(target: CpuTarget, dtype: DType) -> None:
    rng = np.random.default_rng()
    for rows, layer in ((1, 0), (4, 2), (11, 1)):
        qkv = f32(rng.standard_normal((rows, (6 + 2 * HEADS) * SIZE)), T)
        q_weight, k_weight = (weight(dtype, rng.standard_normal(SIZE)) for _ in range(2))
        angles = f32(rng.standard_normal((rows, SIZE)), T)
        op = ops.QkvNormRopeWrite(q_heads=6, layer=layer, eps=1e-6)
        check(target, op, qkv, q_weight, k_weight, angles, _slots(rng, rows), _cache(rng))
