from __future__ import annotations

import numpy as np

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, i32, launch
from bench.kernels.cpu.shapes import HIDDEN
from oi.ir import ops
from oi.ir.types import R, T


def test_select_rows(measure: Measure) -> None:
    x, rows = f32(np.ones((512, HIDDEN)), T), i32(np.arange(0, 512, 8), R)
    measure(launch(ops.SelectRows(), x, rows), bytes=8 * 64 * HIDDEN)
