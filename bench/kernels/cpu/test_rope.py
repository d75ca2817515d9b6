from __future__ import annotations

import numpy as np

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, launch
from bench.kernels.cpu.shapes import DIM, Q_HEADS
from oi.ir import ops
from oi.ir.types import T


def test_rope(measure: Measure) -> None:
    x, angles = f32(np.ones((256, Q_HEADS, DIM)), T), f32(np.ones((256, DIM)), T)
    measure(launch(ops.Rope(), x, angles), bytes=8 * 256 * Q_HEADS * DIM)
