"""Rotary embedding, the paged KV cache and attention over it.

The cache is one tensor threaded through the graph as an SSA value: [N, L, 2, K, B, D]. A page holds all
layers of its B tokens contiguously, so that moving a page to or from the host is one copy. A *slot* is
page * B + offset; a slot of -1 marks a padding token, which writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from oi.ir.errors import TypeMismatch
from oi.ir.op import Op, expect_dtype, expect_rank, expect_same, expect_shape, register
from oi.ir.types import DType, TensorType

__all__ = ["Attention", "KvWrite", "QkvAttention", "QkvNormRopeWrite", "Rope", "RopeAngles"]


def _check_cache(op: str, kv: TensorType, layer: int) -> tuple[int, int]:
    """Check the cache's rank and layer; return (K, D)."""
    expect_rank(f"{op}: kv", kv, 6)
    _, layers, two, heads, page, dim = kv.shape
    if two != 2 or not all(isinstance(d, int) for d in (layers, heads, page, dim)):
        raise TypeMismatch(f"{op}: kv must be [N, L, 2, K, B, D] with static L, K, B, D, found {kv}")
    assert isinstance(layers, int)
    assert isinstance(heads, int)
    assert isinstance(dim, int)
    if not 0 <= layer < layers:
        raise TypeMismatch(f"{op}: layer {layer} is outside of {kv}")
    return heads, dim


@register
@dataclass(frozen=True)
class RopeAngles(Op):
    """Cosines and sines of a step's positions, once for all layers. `scale` is YaRN's attention factor."""

    name = "rope_angles"
    operands = ("positions", "inv_freq")
    equation = "y[t, i] = scale·cos(positions[t]·inv_freq[i]);  y[t, D/2 + i] = scale·sin(same)"
    scale: float

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        positions, inv_freq = operands
        expect_rank("rope_angles: positions", positions, 1)
        expect_dtype("rope_angles: positions", positions, DType.I32)
        expect_rank("rope_angles: inv_freq", inv_freq, 1)
        half = inv_freq.shape[0]
        if not isinstance(half, int):
            raise TypeMismatch(f"rope_angles: inv_freq must have a static length, found {inv_freq}")
        return (TensorType(DType.F32, (positions.shape[0], 2 * half)),)


@register
@dataclass(frozen=True)
class Rope(Op):
    """Rotate pairs (i, i + D/2) of each head. x is [T, heads, D], angles [T, D]."""

    name = "rope"
    operands = ("x", "angles")
    equation = "y[i] = x[i]·cos[i] - x[i + D/2]·sin[i];  y[i + D/2] = x[i + D/2]·cos[i] + x[i]·sin[i]"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, angles = operands
        expect_rank("rope: x", x, 3)
        expect_shape("rope: angles", angles, DType.F32, x.shape[0], x.shape[2])
        return (x,)


@register
@dataclass(frozen=True)
class KvWrite(Op):
    """Store the step's keys and values in the cache; the result is the cache after the write."""

    name = "kv_write"
    operands = ("k", "v", "slots", "kv")
    equation = "kv'[slots[t] ÷ B, layer, 0|1, :, slots[t] mod B, :] = k[t]|v[t] where slots[t] ≥ 0"
    layer: int

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        k, v, slots, kv = operands
        heads, dim = _check_cache("kv_write", kv, self.layer)
        if k != v:
            raise TypeMismatch(f"kv_write: k and v must have one type, found {k} and {v}")
        expect_shape("kv_write: k", k, k.dtype, k.shape[0], heads, dim)
        expect_shape("kv_write: slots", slots, DType.I32, k.shape[0])
        return (kv,)


@register
@dataclass(frozen=True)
class Attention(Op):
    """Causal attention of ragged queries over paged keys and values.

    Sequence s owns query rows [query_starts[s], query_starts[s] + query_lens[s]); its last query sits at
    position context_lens[s] - 1. Any mixture of decode rows (query_lens 1) and prefill chunks is one call.
    q is [T, Q, D]; head h reads KV head h ÷ (Q ÷ K). Rows of no sequence are left unspecified.
    """

    name = "attention"
    operands = ("q", "kv", "query_starts", "query_lens", "context_lens", "page_table")
    equation = "y[t, h] = Σ_j softmax_j(scale · q[t, h]·k[j]) · v[j],  j ≤ position of t"
    layer: int
    scale: float

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        q, kv, query_starts, query_lens, context_lens, page_table = operands
        heads, dim = _check_cache("attention", kv, self.layer)
        expect_rank("attention: q", q, 3)
        expect_same("attention: q's head dim", q.shape[2], dim)
        q_heads = q.shape[1]
        if not isinstance(q_heads, int) or q_heads % heads:
            raise TypeMismatch(f"attention: query heads of {q} must be a multiple of the {heads} KV heads")
        sequences = query_starts.shape[0]
        for what, t in (("query_starts", query_starts), ("query_lens", query_lens), ("context_lens", context_lens)):
            expect_shape(f"attention: {what}", t, DType.I32, sequences)
        expect_rank("attention: page_table", page_table, 2)
        expect_shape("attention: page_table", page_table, DType.I32, sequences, page_table.shape[1])
        return (q,)


@register
@dataclass(frozen=True)
class QkvNormRopeWrite(Op):
    """Everything between the q/k/v projection and attention. Results are (q [T, Q, D], kv)."""

    name = "qkv_norm_rope_write"
    operands = ("qkv", "q_weight", "k_weight", "angles", "slots", "kv")
    equation = (
        "q = rope(rms_norm(qkv[:, :Q·D], q_weight));  k = rope(rms_norm(qkv[:, Q·D:(Q+K)·D], k_weight));  "
        "v = qkv[:, (Q+K)·D:];  kv' = kv_write(k, v)"
    )
    q_heads: int
    layer: int
    eps: float

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        qkv, q_weight, k_weight, angles, slots, kv = operands
        heads, dim = _check_cache("qkv_norm_rope_write", kv, self.layer)
        tokens = qkv.shape[0]
        expect_shape("qkv_norm_rope_write: qkv", qkv, qkv.dtype, tokens, (self.q_heads + 2 * heads) * dim)
        expect_shape("qkv_norm_rope_write: q_weight", q_weight, q_weight.dtype, dim)
        expect_shape("qkv_norm_rope_write: k_weight", k_weight, k_weight.dtype, dim)
        expect_shape("qkv_norm_rope_write: angles", angles, DType.F32, tokens, dim)
        expect_shape("qkv_norm_rope_write: slots", slots, DType.I32, tokens)
        return (TensorType(qkv.dtype, (tokens, self.q_heads, dim)), kv)


@register
@dataclass(frozen=True)
class QkvAttention(Op):
    """qkv_norm_rope_write and the attention that follows. Results are (y [T, Q, D], kv)."""

    name = "qkv_attention"
    operands = (*QkvNormRopeWrite.operands, *Attention.operands[2:])
    equation = "q, kv' = qkv_norm_rope_write(qkv, …, kv);  y = attention(q, kv', …)"
    q_heads: int
    layer: int
    eps: float
    scale: float

    @property
    def parts(self) -> tuple[QkvNormRopeWrite, Attention]:
        """The ops that it is."""
        return QkvNormRopeWrite(self.q_heads, self.layer, self.eps), Attention(self.layer, self.scale)

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        write, attention = self.parts
        first, sequences = operands[: len(write.operands)], operands[len(write.operands) :]
        try:
            return (*attention.result_types(*write.result_types(*first), *sequences), first[-1])
        except TypeMismatch as e:
            raise TypeMismatch(f"qkv_attention: {e}") from None
