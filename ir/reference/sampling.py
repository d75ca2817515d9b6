"""Reference semantics of ops/sampling.py."""

from __future__ import annotations

import numpy as np

from oi.ir import ops
from oi.ir.reference.jit import Array, jit

__all__ = ["greedy", "log_probs", "sample"]


@jit
def _argmax(z: Array) -> int:
    """The lowest index of the largest element."""
    best = 0
    for v in range(z.size):
        if z[v] > z[best]:
            best = v
    return best


def greedy(op: ops.Greedy, logits: Array) -> tuple[Array]:
    tokens = np.empty(len(logits), np.int32)
    _greedy(logits, tokens)
    return (tokens,)


@jit
def _greedy(logits: Array, tokens: Array) -> None:
    for r in range(logits.shape[0]):
        tokens[r] = _argmax(logits[r])


def sample(
    op: ops.Sample,
    logits: Array,
    edit_starts: Array,
    edit_lens: Array,
    edit_tokens: Array,
    edit_scale: Array,
    edit_add: Array,
    temperature: Array,
    top_k: Array,
    top_p: Array,
    min_p: Array,
    uniform: Array,
) -> tuple[Array]:
    tokens = np.empty(len(logits), np.int32)
    for r in range(len(logits)):
        edits = slice(edit_starts[r], edit_starts[r] + edit_lens[r])
        z = logits[r].copy()
        _edit(z, edit_tokens[edits], edit_scale[edits], edit_add[edits])
        if temperature[r] == 0:
            tokens[r] = _argmax(z)
        else:
            p = _softmax(z, temperature[r])
            _cut_below(p, min_p[r] * p.max())
            _cut_below(p, _top_k_threshold(p, top_k[r]))
            _cut_below(p, _top_p_threshold(p, top_p[r]))
            tokens[r] = _draw(p, uniform[r])
    return (tokens,)


@jit
def _edit(z: Array, tokens: Array, scale: Array, add: Array) -> None:
    for e in range(tokens.size):
        v = tokens[e]
        z[v] = (z[v] / scale[e] if z[v] > 0 else z[v] * scale[e]) + add[e]


@jit
def _softmax(z: Array, temperature: float) -> Array:
    """Up to a common factor: the largest is 1, and all that follows compares and divides."""
    return np.exp((z - z.max()) / temperature)  # type: ignore[no-any-return]


@jit
def _cut_below(p: Array, threshold: float) -> None:
    """0 stands for a token that is not kept."""
    for v in range(p.size):
        if p[v] < threshold:
            p[v] = 0


@jit
def _top_k_threshold(p: Array, k: int) -> float:
    """The k-th largest; the smallest where k is 0 or beyond the end."""
    falling = np.sort(p)[::-1]
    return falling[k - 1] if 0 < k <= p.size else falling[-1]  # type: ignore[no-any-return]


@jit
def _top_p_threshold(p: Array, top_p: float) -> float:
    """The largest t such that all p ≥ t hold at least `top_p` of the mass; 0 where top_p is 1."""
    if top_p >= 1:
        return p.dtype.type(0)  # type: ignore[no-any-return]
    falling = np.sort(p)[::-1]
    total = falling.sum()
    mass = p.dtype.type(0)
    for v in range(p.size):
        mass += falling[v]
        if mass >= top_p * total:
            return falling[v]  # type: ignore[no-any-return]
    return falling[-1]  # type: ignore[no-any-return]


@jit
def _draw(p: Array, uniform: float) -> int:
    """The lowest kept v whose running mass exceeds `uniform` of the total."""
    total = p.sum()
    mass = p.dtype.type(0)
    last = 0
    for v in range(p.size):
        if p[v] > 0:
            last = v
            mass += p[v]
            if mass > uniform * total:
                break
    return last


def log_probs(op: ops.LogProbs, logits: Array, token: Array) -> tuple[Array, Array, Array]:
    rows = len(logits)
    chosen = np.empty(rows, logits.dtype)
    tokens = np.empty((rows, op.k), np.int32)
    top = np.empty((rows, op.k), logits.dtype)
    _log_probs(logits, token, chosen, tokens, top)
    return chosen, tokens, top


@jit
def _log_probs(logits: Array, token: Array, chosen: Array, tokens: Array, top: Array) -> None:
    for r in range(logits.shape[0]):
        largest = logits[r].max()
        total = logits.dtype.type(0)
        for v in range(logits.shape[1]):
            total += np.exp(logits[r, v] - largest)
        log_sum = largest + np.log(total)
        chosen[r] = logits[r, token[r]] - log_sum
        left = logits[r].copy()
        for i in range(tokens.shape[1]):
            best = _argmax(left)
            tokens[r, i] = best
            top[r, i] = logits[r, best] - log_sum
            left[best] = -np.inf
