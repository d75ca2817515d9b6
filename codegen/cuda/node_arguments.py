"""A node's launch arguments, as parameters of kernels."""

from __future__ import annotations

from oi.codegen.cuda.source import Argument
from oi.ir import ops
from oi.ir.graph import Node, Value
from oi.ir.types import DType
from oi.runtime.cuda_library import Operand

__all__ = ["node_arguments", "static_shape"]

_POINTERS = {DType.BF16: "*bf16", DType.F32: "*fp32", DType.I32: "*i32"}


def node_arguments(node: Node) -> list[Argument]:
    """In the order of docs/architecture.md: operands, results but the cache's next version, `layer`."""
    results = node.results[:1] if isinstance(node.op, (ops.QkvNormRopeWrite, ops.QkvAttention)) else node.results
    types = [_POINTERS[value.type.dtype] for value in (*node.operands, *results)]
    if hasattr(node.op, "layer"):
        types.append("i32")
    return [Argument(type, Operand(i)) for i, type in enumerate(types)]


def static_shape(value: Value) -> list[int]:
    """The dims that are not symbolic."""
    return [d for d in value.type.shape if isinstance(d, int)]
