from __future__ import annotations

import numpy as np
import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, launch
from bench.kernels.cpu.shapes import EPS, HIDDEN
from oi.ir import ops
from oi.ir.types import T


@pytest.mark.parametrize("rows", [1, 256])
def test_rms_norm(measure: Measure, rows: int) -> None:
    x, weight = f32(np.ones((rows, HIDDEN)), T), f32(np.ones(HIDDEN))
    measure(launch(ops.RmsNorm(eps=EPS), x, weight), bytes=8 * rows * HIDDEN)
