from __future__ import annotations

import numpy as np

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, launch
from bench.kernels.cpu.shapes import HIDDEN
from oi.ir import ops
from oi.ir.types import T


def test_slice_columns(measure: Measure) -> None:
    x = f32(np.ones((256, 4 * HIDDEN)), T)
    measure(launch(ops.SliceColumns(start=2 * HIDDEN, size=HIDDEN), x), bytes=8 * 256 * HIDDEN)
