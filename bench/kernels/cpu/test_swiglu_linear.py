"""swiglu_linear: gate_proj and up_proj with their SiLU·mul; torch does the two products only."""

from __future__ import annotations

import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.shapes import HIDDEN, INTERMEDIATE, products, torch_linear
from oi.ir import ops


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16, 64, 256])
def test_swiglu_linear(measure: Measure, rows: int) -> None:
    launches, bytes, flop = products(ops.SwigluLinear(), rows, [INTERMEDIATE, INTERMEDIATE], HIDDEN)
    if rows <= 4:
        measure(launches, bytes=bytes)
    else:
        measure(launches, flop=flop, torch=torch_linear(rows, 2 * INTERMEDIATE, HIDDEN))
