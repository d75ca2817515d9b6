"""silu(x·gateᵀ) ∘ (x·upᵀ)  →  swiglu_linear(x, gate, up)"""

from __future__ import annotations

from oi.codegen.passes.match import sole
from oi.ir.graph import Graph, Node
from oi.ir.ops import Linear, Mul, Silu, SwigluLinear
from oi.ir.rewrite import Rewriter, rewrite

__all__ = ["fuse_swiglu"]


def fuse_swiglu(graph: Graph) -> Graph:
    return rewrite(graph, _fuse)


def _fuse(node: Node, rewriter: Rewriter) -> None:
    if not isinstance(node.op, Mul):
        return
    for activated, other in (node.operands, node.operands[::-1]):
        match sole(rewriter, activated), sole(rewriter, other):
            case Node(Silu(), (gated,)), Node(Linear() as linear, (x, up)):
                match sole(rewriter, gated):
                    case Node(op, (same_x, gate)) if (
                        op == linear and same_x is x and gate.type == up.type and linear.dtype == x.type.dtype
                    ):
                        rewriter.replace(node, rewriter.emit(SwigluLinear(), x, gate, up))
                        return
