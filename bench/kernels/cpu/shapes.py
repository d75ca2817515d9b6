"""Qwen3-0.6B, and copies of its weights to read in turn, so that none is found in cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bench.kernels.cpu.launch import THREADS, Operand, f32, launch, weight
from oi.ir.op import Op
from oi.ir.types import T

__all__ = [
    "DIM",
    "EPS",
    "HIDDEN",
    "INTERMEDIATE",
    "KV_HEADS",
    "PAGE",
    "Q_HEADS",
    "VOCABULARY",
    "products",
    "torch_linear",
]

HIDDEN, INTERMEDIATE, VOCABULARY = 1024, 3072, 151_936
Q_HEADS, KV_HEADS, DIM, PAGE, EPS = 16, 8, 128, 16, 1e-6
_COLD_BYTES = 128 << 20


def products(op: Op, rows: int, sizes: Sequence[int], k: int) -> tuple[list[Callable[[], None]], float, float]:
    """Launches of a product with weights [size, k] each, their bytes, and FLOP."""
    rng = np.random.default_rng()
    x = f32(rng.standard_normal((rows, k)), T)
    bytes = 2 * k * sum(sizes)
    copies = max(1, _COLD_BYTES // bytes) if rows <= 8 else 1
    launches = [launch(op, x, *_weights(rng, sizes, k)) for _ in range(copies)]
    return launches, bytes, 2 * rows * k * sum(sizes)


def _weights(rng: np.random.Generator, sizes: Sequence[int], k: int) -> list[Operand]:
    return [weight(rng, n, k) for n in sizes]


def torch_linear(rows: int, n: int, k: int) -> Callable[[], object]:
    """The same product by torch in float32."""
    torch.set_num_threads(THREADS)
    x, w = torch.randn(rows, k), torch.randn(n, k)
    return lambda: torch.nn.functional.linear(x, w)
