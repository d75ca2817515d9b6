from __future__ import annotations

import numpy as np

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, i32, launch
from bench.kernels.cpu.shapes import DIM
from oi.ir import ops
from oi.ir.types import T


def test_rope_angles(measure: Measure) -> None:
    positions, inv_freq = i32(np.arange(256), T), f32(1e6 ** -(np.arange(DIM // 2) / (DIM // 2)))
    measure(launch(ops.RopeAngles(scale=1.0), positions, inv_freq), bytes=4 * 256 * DIM)
