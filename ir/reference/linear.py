"""Reference semantics of ops/linear.py."""

from __future__ import annotations

import numpy as np

from oi.ir import ops
from oi.ir.reference.jit import Array, jit

__all__ = ["embedding", "linear", "linear_concat", "swiglu_linear"]


def embedding(op: ops.Embedding, tokens: Array, table: Array) -> tuple[Array]:
    return (table[tokens],)


def linear(op: ops.Linear, x: Array, weight: Array) -> tuple[Array]:
    y = np.empty((len(x), len(weight)), x.dtype)
    _linear(x, weight, y)
    return (y,)


@jit
def _linear(x: Array, weight: Array, y: Array) -> None:
    for m in range(x.shape[0]):
        for n in range(weight.shape[0]):
            total = x.dtype.type(0)
            for k in range(x.shape[1]):
                total += x[m, k] * weight[n, k]
            y[m, n] = total


def linear_concat(op: ops.LinearConcat, x: Array, *weights: Array) -> tuple[Array]:
    y = np.empty((len(x), sum(map(len, weights))), x.dtype)
    _linear(x, np.concatenate(weights), y)
    return (y,)


def swiglu_linear(op: ops.SwigluLinear, x: Array, gate: Array, up: Array) -> tuple[Array]:
    y = np.empty((len(x), len(gate)), x.dtype)
    _swiglu_linear(x, gate, up, y)
    return (y,)


@jit
def _swiglu_linear(x: Array, gate: Array, up: Array, y: Array) -> None:
    one = x.dtype.type(1)
    for m in range(x.shape[0]):
        for n in range(gate.shape[0]):
            g = u = x.dtype.type(0)
            for k in range(x.shape[1]):
                g += x[m, k] * gate[n, k]
                u += x[m, k] * up[n, k]
            y[m, n] = g / (one + np.exp(-g)) * u
