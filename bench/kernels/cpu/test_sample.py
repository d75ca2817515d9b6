from __future__ import annotations

import numpy as np
import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, i32, launch
from bench.kernels.cpu.shapes import VOCABULARY
from oi.ir import ops
from oi.ir.types import E, R


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (50, 0.9)], ids=["no cuts", "top_k top_p"])
@pytest.mark.parametrize("rows", [1, 16])
def test_sample(measure: Measure, rows: int, top_k: int, top_p: float) -> None:
    logits = f32(3 * np.random.default_rng().standard_normal((rows, VOCABULARY)), R)
    none, one = i32(np.zeros(rows), R), f32(np.ones(rows), R)
    edits = i32(np.zeros(1), E), f32(np.ones(1), E), f32(np.zeros(1), E)
    cuts = i32(np.full(rows, top_k), R), f32(np.full(rows, top_p), R), f32(np.zeros(rows), R)
    op = launch(ops.Sample(), logits, none, none, *edits, one, *cuts, f32(np.full(rows, 0.5), R))
    measure(op, bytes=4 * rows * VOCABULARY)
