from __future__ import annotations

import numpy as np
import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, i32, launch
from bench.kernels.cpu.shapes import DIM, EPS, KV_HEADS, PAGE, Q_HEADS
from oi.ir import ops
from oi.ir.types import N, T


@pytest.mark.parametrize("rows", [1, 256])
def test_qkv_norm_rope_write(measure: Measure, rows: int) -> None:
    width = (Q_HEADS + 2 * KV_HEADS) * DIM
    qkv, norm, angles = f32(np.ones((rows, width)), T), f32(np.ones(DIM)), f32(np.ones((rows, DIM)), T)
    kv = f32(np.zeros((16, 1, 2, KV_HEADS, PAGE, DIM)), N)
    op = ops.QkvNormRopeWrite(q_heads=Q_HEADS, layer=0, eps=EPS)
    measure(launch(op, qkv, norm, norm, angles, i32(np.arange(rows), T), kv), bytes=8 * rows * width)
