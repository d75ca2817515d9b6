"""Reference semantics of ops/norm.py."""

from __future__ import annotations

import numpy as np

from oi.ir import ops
from oi.ir.reference.jit import Array, jit

__all__ = ["add_rms_norm", "norm_row", "rms_norm"]


@jit
def norm_row(x: Array, weight: Array, eps: float, y: Array) -> None:
    """Normalise one row. `eps` has the dtype of x."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * x[i]
    scale = x.dtype.type(1) / np.sqrt(total / x.dtype.type(x.size) + eps)
    for i in range(x.size):
        y[i] = x[i] * scale * weight[i]


def rms_norm(op: ops.RmsNorm, x: Array, weight: Array) -> tuple[Array]:
    y = np.empty(x.shape, x.dtype)
    width = x.shape[-1]
    _rms_norm(x.reshape(-1, width), weight, x.dtype.type(op.eps), y.reshape(-1, width))
    return (y,)


@jit
def _rms_norm(x: Array, weight: Array, eps: float, y: Array) -> None:
    for t in range(x.shape[0]):
        norm_row(x[t], weight, eps, y[t])


def add_rms_norm(op: ops.AddRmsNorm, x: Array, residual: Array, weight: Array) -> tuple[Array, Array]:
    z, y = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    width = x.shape[-1]
    _add_rms_norm(
        x.reshape(-1, width),
        residual.reshape(-1, width),
        weight,
        x.dtype.type(op.eps),
        z.reshape(-1, width),
        y.reshape(-1, width),
    )
    return z, y


@jit
def _add_rms_norm(x: Array, residual: Array, weight: Array, eps: float, z: Array, y: Array) -> None:
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            z[t, i] = x[t, i] + residual[t, i]
        norm_row(z[t], weight, eps, y[t])
