"""Executable semantics of every op, fused ones too, in plain loops: what kernels are tested against.

A reference takes the op and its operands and returns the results as a tuple. All floating operands have one
dtype, float32 or float64, which is also that of the results and of every sum. Operands are never written to.
"""

from collections.abc import Callable
from typing import Any

from oi.ir import ops
from oi.ir.op import Op
from oi.ir.reference import attention, linear, norm, sampling, tensor
from oi.ir.reference.jit import Array

__all__ = ["REFERENCE", "Array"]

REFERENCE: dict[type[Op], Callable[..., tuple[Any, ...]]] = {
    ops.Add: tensor.add,
    ops.AddRmsNorm: norm.add_rms_norm,
    ops.Attention: attention.attention,
    ops.Embedding: linear.embedding,
    ops.Greedy: sampling.greedy,
    ops.KvWrite: attention.kv_write,
    ops.Linear: linear.linear,
    ops.LinearConcat: linear.linear_concat,
    ops.LogProbs: sampling.log_probs,
    ops.Mul: tensor.mul,
    ops.QkvAttention: attention.qkv_attention,
    ops.QkvNormRopeWrite: attention.qkv_norm_rope_write,
    ops.Reshape: tensor.reshape,
    ops.RmsNorm: norm.rms_norm,
    ops.Rope: attention.rope,
    ops.RopeAngles: attention.rope_angles,
    ops.Sample: sampling.sample,
    ops.SelectRows: tensor.select_rows,
    ops.Silu: tensor.silu,
    ops.SliceColumns: tensor.slice_columns,
    ops.SwigluLinear: linear.swiglu_linear,
}
"""By op class. A constant has no operands to take a dtype from: the interpreter fills it in."""
