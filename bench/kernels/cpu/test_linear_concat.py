"""linear_concat: the fused q/k/v projection."""

from __future__ import annotations

import pytest

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.shapes import DIM, HIDDEN, KV_HEADS, Q_HEADS, products, torch_linear
from oi.ir import ops


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16, 64, 256])
def test_linear_concat(measure: Measure, rows: int) -> None:
    sizes = [Q_HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM]
    launches, bytes, flop = products(ops.LinearConcat(), rows, sizes, HIDDEN)
    if rows <= 4:
        measure(launches, bytes=bytes)
    else:
        measure(launches, flop=flop, torch=torch_linear(rows, sum(sizes), HIDDEN))
