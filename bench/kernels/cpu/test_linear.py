"""linear: o_proj, down_proj, lm_head."""

from __future__ import annotations

import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.shapes import DIM, HIDDEN, INTERMEDIATE, Q_HEADS, VOCABULARY, products, torch_linear
from oi.ir import ops
from oi.ir.types import DType

SHAPES = {"o": (HIDDEN, Q_HEADS * DIM), "down": (HIDDEN, INTERMEDIATE), "head": (VOCABULARY, HIDDEN)}


@pytest.mark.parametrize("rows", [1, 4, 8, 64, 256])
@pytest.mark.parametrize("name", SHAPES)
def test_linear(measure: Measure, name: str, rows: int) -> None:
    if name == "head" and rows > 8:
        pytest.skip("the head sees sampled rows only")
    n, k = SHAPES[name]
    launches, bytes, flop = products(ops.Linear(dtype=DType.F32), rows, [n], k)
    if rows <= 4:
        measure(launches, bytes=bytes)
    else:
        measure(launches, flop=flop, torch=torch_linear(rows, n, k))
