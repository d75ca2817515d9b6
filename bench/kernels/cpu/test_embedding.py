from __future__ import annotations

import numpy as np

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import i32, launch, weight
from bench.kernels.cpu.shapes import HIDDEN, VOCABULARY
from oi.ir import ops
from oi.ir.types import DType, T


def test_embedding(measure: Measure) -> None:
    rng = np.random.default_rng()
    tokens, table = i32(rng.integers(0, VOCABULARY, 256), T), weight(rng, VOCABULARY, HIDDEN)
    measure(launch(ops.Embedding(dtype=DType.F32), tokens, table), bytes=6 * 256 * HIDDEN)
