"""Root-mean-square normalisation, statistics in float32."""

from __future__ import annotations

from dataclasses import dataclass

from oi.ir.errors import TypeMismatch
from oi.ir.op import Op, expect_dtype, expect_rank, expect_same, register
from oi.ir.types import DType, TensorType

__all__ = ["AddRmsNorm", "RmsNorm"]


def _check(op: str, x: TensorType, weight: TensorType) -> None:
    expect_dtype(f"{op}: x", x, DType.F32, DType.BF16)
    expect_rank(f"{op}: weight", weight, 1)
    expect_dtype(f"{op}: weight", weight, DType.F32, DType.BF16)
    if x.rank < 2:
        raise TypeMismatch(f"{op}: x must have rank 2 or 3, found {x}")
    expect_same(f"{op}: weight's length", weight.shape[0], x.shape[-1])


@register
@dataclass(frozen=True)
class RmsNorm(Op):
    """Normalise the last dimension; x is [T, H], or [T, heads, D] for the norms of q and k."""

    name = "rms_norm"
    operands = ("x", "weight")
    equation = "y = x / sqrt(mean(x², last dim) + eps) ∘ weight"
    eps: float

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, weight = operands
        _check("rms_norm", x, weight)
        return (x,)


@register
@dataclass(frozen=True)
class AddRmsNorm(Op):
    """Residual and norm in one: results are (z, y)."""

    name = "add_rms_norm"
    operands = ("x", "residual", "weight")
    equation = "z = x + residual;  y = rms_norm(z, weight)"
    eps: float

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, residual, weight = operands
        _check("add_rms_norm", x, weight)
        if x != residual:
            raise TypeMismatch(f"add_rms_norm: x and residual must have one type, found {x} and {residual}")
        return (x, x)
