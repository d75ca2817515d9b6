from __future__ import annotations

import numpy as np
import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, i32, launch
from bench.kernels.cpu.shapes import VOCABULARY
from oi.ir import ops
from oi.ir.types import R


@pytest.mark.parametrize("rows", [1, 16])
def test_log_probs(measure: Measure, rows: int) -> None:
    logits = f32(np.random.default_rng().standard_normal((rows, VOCABULARY)), R)
    measure(launch(ops.LogProbs(k=20), logits, i32(np.zeros(rows), R)), bytes=8 * rows * VOCABULARY)
