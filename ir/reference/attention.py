"""Reference semantics of ops/attention.py."""

from __future__ import annotations

import numpy as np

from oi.ir import ops
from oi.ir.reference.jit import Array, jit
from oi.ir.reference.norm import norm_row

__all__ = ["attention", "kv_write", "qkv_attention", "qkv_norm_rope_write", "rope", "rope_angles"]


def rope_angles(op: ops.RopeAngles, positions: Array, inv_freq: Array) -> tuple[Array]:
    y = np.empty((len(positions), 2 * len(inv_freq)), inv_freq.dtype)
    _rope_angles(positions, inv_freq, inv_freq.dtype.type(op.scale), y)
    return (y,)


@jit
def _rope_angles(positions: Array, inv_freq: Array, scale: float, y: Array) -> None:
    half = inv_freq.size
    for t in range(positions.size):
        for i in range(half):
            angle = inv_freq.dtype.type(positions[t]) * inv_freq[i]
            y[t, i] = scale * np.cos(angle)
            y[t, half + i] = scale * np.sin(angle)


@jit
def _rotate(x: Array, angles: Array, y: Array) -> None:
    """One head. x and y must not overlap."""
    half = x.size // 2
    for i in range(half):
        y[i] = x[i] * angles[i] - x[half + i] * angles[half + i]
        y[half + i] = x[half + i] * angles[i] + x[i] * angles[half + i]


def rope(op: ops.Rope, x: Array, angles: Array) -> tuple[Array]:
    y = np.empty(x.shape, x.dtype)
    _rope(x, angles, y)
    return (y,)


@jit
def _rope(x: Array, angles: Array, y: Array) -> None:
    for t in range(x.shape[0]):
        for h in range(x.shape[1]):
            _rotate(x[t, h], angles[t], y[t, h])


def kv_write(op: ops.KvWrite, k: Array, v: Array, slots: Array, kv: Array) -> tuple[Array]:
    kv = kv.copy()
    _kv_write(k, v, slots, op.layer, kv)
    return (kv,)


@jit
def _kv_write(k: Array, v: Array, slots: Array, layer: int, kv: Array) -> None:
    page_size = kv.shape[4]
    for t in range(slots.size):
        if slots[t] >= 0:
            page, offset = slots[t] // page_size, slots[t] % page_size
            kv[page, layer, 0, :, offset] = k[t]
            kv[page, layer, 1, :, offset] = v[t]


def attention(
    op: ops.Attention,
    q: Array,
    kv: Array,
    query_starts: Array,
    query_lens: Array,
    context_lens: Array,
    page_table: Array,
) -> tuple[Array]:
    """Rows of no sequence are NaN, so that whoever reads them is found."""
    y = np.full_like(q, np.nan)
    _attention(q, kv, query_starts, query_lens, context_lens, page_table, op.layer, q.dtype.type(op.scale), y)
    return (y,)


@jit
def _attention(
    q: Array,
    kv: Array,
    query_starts: Array,
    query_lens: Array,
    context_lens: Array,
    page_table: Array,
    layer: int,
    scale: float,
    y: Array,
) -> None:
    for s in range(query_starts.size):
        for i in range(query_lens[s]):
            t = query_starts[s] + i
            position = context_lens[s] - query_lens[s] + i
            for h in range(q.shape[1]):
                kv_head = h // (q.shape[1] // kv.shape[3])
                _attend(q[t, h], kv[:, layer, :, kv_head], page_table[s], position + 1, scale, y[t, h])


@jit
def _attend(q: Array, kv: Array, pages: Array, length: int, scale: float, y: Array) -> None:
    """One query head against the first `length` tokens of its sequence; kv is [N, 2, B, D]."""
    page_size = kv.shape[2]
    scores = np.empty(length, q.dtype)
    for j in range(length):
        k = kv[pages[j // page_size], 0, j % page_size]
        score = q.dtype.type(0)
        for d in range(q.size):
            score += q[d] * k[d]
        scores[j] = scale * score
    weights = np.exp(scores - scores.max())
    y[:] = q.dtype.type(0)
    for j in range(length):
        v = kv[pages[j // page_size], 1, j % page_size]
        for d in range(q.size):
            y[d] += weights[j] * v[d]
    total = q.dtype.type(0)
    for j in range(length):
        total += weights[j]
    for d in range(q.size):
        y[d] /= total


def qkv_norm_rope_write(
    op: ops.QkvNormRopeWrite, qkv: Array, q_weight: Array, k_weight: Array, angles: Array, slots: Array, kv: Array
) -> tuple[Array, Array]:
    q = np.empty((len(qkv), op.q_heads, kv.shape[5]), qkv.dtype)
    kv = kv.copy()
    _qkv_norm_rope_write(qkv, q_weight, k_weight, angles, slots, op.layer, qkv.dtype.type(op.eps), q, kv)
    return q, kv


@jit
def _qkv_norm_rope_write(
    qkv: Array,
    q_weight: Array,
    k_weight: Array,
    angles: Array,
    slots: Array,
    layer: int,
    eps: float,
    q: Array,
    kv: Array,
) -> None:
    q_heads, kv_heads, page_size, dim = q.shape[1], kv.shape[3], kv.shape[4], kv.shape[5]
    normed = np.empty(dim, qkv.dtype)
    for t in range(qkv.shape[0]):
        heads = qkv[t].reshape(q_heads + 2 * kv_heads, dim)
        for h in range(q_heads):
            norm_row(heads[h], q_weight, eps, normed)
            _rotate(normed, angles[t], q[t, h])
        if slots[t] < 0:
            continue
        page, offset = slots[t] // page_size, slots[t] % page_size
        for h in range(kv_heads):
            norm_row(heads[q_heads + h], k_weight, eps, normed)
            _rotate(normed, angles[t], kv[page, layer, 0, h, offset])
            kv[page, layer, 1, h, offset] = heads[q_heads + kv_heads + h]


def qkv_attention(op: ops.QkvAttention, *operands: Array) -> tuple[Array, Array]:
    write, attend = op.parts
    q, kv = qkv_norm_rope_write(write, *operands[:6])
    (y,) = attention(attend, q, kv, *operands[6:])
    return y, kv
