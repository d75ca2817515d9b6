from __future__ import annotations

import numpy as np

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, launch
from bench.kernels.cpu.shapes import INTERMEDIATE
from oi.ir import ops
from oi.ir.types import T


def test_silu(measure: Measure) -> None:
    x = f32(np.ones((256, INTERMEDIATE)), T)
    measure(launch(ops.Silu(), x), bytes=8 * 256 * INTERMEDIATE)
