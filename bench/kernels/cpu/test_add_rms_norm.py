from __future__ import annotations

import numpy as np
import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, launch
from bench.kernels.cpu.shapes import EPS, HIDDEN
from oi.ir import ops
from oi.ir.types import T


@pytest.mark.parametrize("rows", [1, 256])
def test_add_rms_norm(measure: Measure, rows: int) -> None:
    x, residual, weight = (f32(np.ones(s), *d) for s, d in (((rows, HIDDEN), [T]),) * 2 + ((HIDDEN, []),))
    measure(launch(ops.AddRmsNorm(eps=EPS), x, residual, weight), bytes=16 * rows * HIDDEN)
