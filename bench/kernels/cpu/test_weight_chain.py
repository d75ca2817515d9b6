"""Every product of a Qwen3-0.6B forward step, 28 layers of weights of their own and the head."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import THREADS, f32, launch, weight
from bench.kernels.cpu.shapes import DIM, HIDDEN, INTERMEDIATE, KV_HEADS, Q_HEADS, VOCABULARY
from oi.ir import ops
from oi.ir.op import Op
from oi.ir.types import DType, T

LAYERS = 28
LINEAR = ops.Linear(dtype=DType.F32)
LAYER: list[tuple[Op, list[int], int]] = [
    (ops.LinearConcat(), [Q_HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM], HIDDEN),
    (LINEAR, [HIDDEN], Q_HEADS * DIM),
    (ops.SwigluLinear(), [INTERMEDIATE, INTERMEDIATE], HIDDEN),
    (LINEAR, [HIDDEN], INTERMEDIATE),
]


def _chain(rows: int, layers: int, head: bool) -> tuple[Callable[[], None], int]:
    """One call of all products, and how many weights they have."""
    rng, calls, parameters = np.random.default_rng(), [], 0
    products = LAYER * layers + ([(LINEAR, [VOCABULARY], HIDDEN)] if head else [])
    inputs = {k: f32(rng.standard_normal((rows, k)), T) for _, _, k in products}
    for op, sizes, k in products:
        calls.append(launch(op, inputs[k], *(weight(rng, n, k) for n in sizes)))
        parameters += sum(sizes) * k

    def call() -> None:
        for c in calls:
            c()

    return call, parameters


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_decode_chain(measure: Measure, rows: int) -> None:
    call, parameters = _chain(rows, LAYERS, head=True)
    measure(call, bytes=2 * parameters)


def test_prefill_chain(measure: Measure) -> None:
    """256 tokens through the products of two layers, against torch in float32."""
    rows, layers = 256, 2
    call, parameters = _chain(rows, layers, head=False)
    torch.set_num_threads(THREADS)
    pairs = [(torch.randn(rows, k), torch.randn(sum(sizes), k)) for _, sizes, k in LAYER * layers]
    measure(call, flop=2 * rows * parameters, torch=lambda: [torch.nn.functional.linear(x, w) for x, w in pairs])
