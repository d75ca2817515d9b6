"""Reference semantics of ops/tensor.py."""

from __future__ import annotations

import numpy as np

from oi.ir import ops
from oi.ir.reference.jit import Array, jit

__all__ = ["add", "mul", "reshape", "select_rows", "silu", "slice_columns"]


def add(op: ops.Add, x: Array, y: Array) -> tuple[Array]:
    z = np.empty(x.shape, x.dtype)
    _add(x.ravel(), y.ravel(), z.ravel())
    return (z,)


@jit
def _add(x: Array, y: Array, z: Array) -> None:
    for i in range(x.size):
        z[i] = x[i] + y[i]


def mul(op: ops.Mul, x: Array, y: Array) -> tuple[Array]:
    z = np.empty(x.shape, x.dtype)
    _mul(x.ravel(), y.ravel(), z.ravel())
    return (z,)


@jit
def _mul(x: Array, y: Array, z: Array) -> None:
    for i in range(x.size):
        z[i] = x[i] * y[i]


def silu(op: ops.Silu, x: Array) -> tuple[Array]:
    y = np.empty(x.shape, x.dtype)
    _silu(x.ravel(), y.ravel())
    return (y,)


@jit
def _silu(x: Array, y: Array) -> None:
    one = x.dtype.type(1)
    for i in range(x.size):
        y[i] = x[i] / (one + np.exp(-x[i]))


def reshape(op: ops.Reshape, x: Array) -> tuple[Array]:
    return (x.reshape(len(x), *op.trailing),)


def slice_columns(op: ops.SliceColumns, x: Array) -> tuple[Array]:
    return (x[:, op.start : op.start + op.size].copy(),)


def select_rows(op: ops.SelectRows, x: Array, rows: Array) -> tuple[Array]:
    return (x[rows],)
