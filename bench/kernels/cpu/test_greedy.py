from __future__ import annotations

import numpy as np
import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, launch
from bench.kernels.cpu.shapes import VOCABULARY
from oi.ir import ops
from oi.ir.types import R


@pytest.mark.parametrize("rows", [1, 16])
def test_greedy(measure: Measure, rows: int) -> None:
    logits = f32(np.random.default_rng().standard_normal((rows, VOCABULARY)), R)
    measure(launch(ops.Greedy(), logits), bytes=4 * rows * VOCABULARY)
