"""x·w₀ᵀ, x·w₁ᵀ, …, each split into heads  →  columns of linear_concat(x, w₀, w₁, …)"""

from __future__ import annotations

from oi.ir.graph import Graph, Node
from oi.ir.ops import Linear, LinearConcat, Reshape, SliceColumns
from oi.ir.rewrite import Rewriter, rewrite

__all__ = ["fuse_qkv"]


def fuse_qkv(graph: Graph) -> Graph:
    """Only products that are split into heads, and only that: gate and up are left to fuse_swiglu."""
    return rewrite(graph, _fuse)


def _fuse(node: Node, rewriter: Rewriter) -> None:
    if not isinstance(node.op, Linear):
        return
    x = node.operands[0]
    alike = [user for user in rewriter.users(x) if _is_projection(user, node, rewriter)]
    if len(alike) < 2 or alike[0] is not node:
        return
    weights = [projection.operands[1] for projection in alike]
    together = rewriter.emit(LinearConcat(), x, *weights, name=f"{node.result.name}.concat")
    start = 0
    for projection, weight in zip(alike, weights, strict=True):
        size = weight.type.shape[0]
        assert isinstance(size, int)
        rewriter.replace(projection, rewriter.emit(SliceColumns(start, size), together))
        start += size


def _is_projection(node: Node, first: Node, rewriter: Rewriter) -> bool:
    """A product of the same x, op and weight dtype, whose only use is to be split into heads."""
    x, weight = first.operands
    return (
        node.op == first.op == Linear(x.type.dtype)
        and node.operands[0] is x
        and node.operands[1].type.dtype == weight.type.dtype
        and rewriter.single_use(node.result)
        and any(isinstance(user.op, Reshape) and len(user.op.trailing) == 2 for user in rewriter.users(node.result))
    )
