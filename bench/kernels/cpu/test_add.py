from __future__ import annotations

import numpy as np

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, launch
from bench.kernels.cpu.shapes import INTERMEDIATE
from oi.ir import ops
from oi.ir.types import T


def test_add(measure: Measure) -> None:
    x, y = (f32(np.ones((256, INTERMEDIATE)), T) for _ in range(2))
    measure(launch(ops.Add(), x, y), bytes=12 * 256 * INTERMEDIATE)
