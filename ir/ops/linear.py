"""Matrix products against weights stored [out, in], as checkpoints store them."""

from __future__ import annotations

from dataclasses import dataclass

from oi.ir.errors import TypeMismatch
from oi.ir.op import Op, expect_dtype, expect_rank, expect_same, register
from oi.ir.types import DType, TensorType

__all__ = ["Embedding", "Linear", "LinearConcat", "SwigluLinear"]


def _columns(op: str, x: TensorType, w: TensorType) -> int:
    """Check x [M, k] against w [n, k]; return n."""
    expect_rank(f"{op}: x", x, 2)
    expect_rank(f"{op}: weight", w, 2)
    expect_dtype(f"{op}: x", x, DType.F32, DType.BF16)
    expect_dtype(f"{op}: weight", w, DType.F32, DType.BF16)
    expect_same(f"{op}: weight's columns", w.shape[1], x.shape[1])
    n = w.shape[0]
    if not isinstance(n, int):
        raise TypeMismatch(f"{op}: weight must have static dims, found {w}")
    return n


@register
@dataclass(frozen=True)
class Embedding(Op):
    """Look token ids up. The result has dtype `dtype`: the precision of the activations."""

    name = "embedding"
    operands = ("tokens", "table")
    equation = "y[t, :] = table[tokens[t], :]"
    dtype: DType

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        tokens, table = operands
        expect_rank("embedding: tokens", tokens, 1)
        expect_dtype("embedding: tokens", tokens, DType.I32)
        expect_rank("embedding: table", table, 2)
        return (TensorType(self.dtype, (tokens.shape[0], table.shape[1])),)


@register
@dataclass(frozen=True)
class Linear(Op):
    """Product with float32 accumulation. `dtype` is the result's (f32 for logits, else the activations')."""

    name = "linear"
    operands = ("x", "weight")
    equation = "y[m, n] = Σ_k x[m, k] · weight[n, k]"
    dtype: DType

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, w = operands
        return (TensorType(self.dtype, (x.shape[0], _columns("linear", x, w))),)


@register
@dataclass(frozen=True)
class LinearConcat(Op):
    """Several products of one x, results side by side: the fused q/k/v projection."""

    name = "linear_concat"
    operands = ("x", "weights*")
    equation = "y = [x·weights[0]ᵀ ‖ x·weights[1]ᵀ ‖ …]"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, *weights = operands
        if not weights or len({w.dtype for w in weights}) != 1:
            raise TypeMismatch("linear_concat: needs one or more weights of one dtype")
        width = sum(_columns("linear_concat", x, w) for w in weights)
        return (TensorType(x.dtype, (x.shape[0], width)),)


@register
@dataclass(frozen=True)
class SwigluLinear(Op):
    name = "swiglu_linear"
    operands = ("x", "gate", "up")
    equation = "y = silu(x·gateᵀ) ∘ (x·upᵀ)"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, gate, up = operands
        if gate != up:
            raise TypeMismatch(f"swiglu_linear: gate and up must have one type, found {gate} and {up}")
        return (TensorType(x.dtype, (x.shape[0], _columns("swiglu_linear", x, gate))),)
