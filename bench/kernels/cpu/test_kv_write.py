from __future__ import annotations

import numpy as np

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import f32, i32, launch
from bench.kernels.cpu.shapes import DIM, KV_HEADS, PAGE
from oi.ir import ops
from oi.ir.types import N, T


def test_kv_write(measure: Measure) -> None:
    k, v = (f32(np.ones((256, KV_HEADS, DIM)), T) for _ in range(2))
    kv = f32(np.zeros((16, 1, 2, KV_HEADS, PAGE, DIM)), N)
    measure(launch(ops.KvWrite(layer=0), k, v, i32(np.arange(256), T), kv), bytes=16 * 256 * KV_HEADS * DIM)
