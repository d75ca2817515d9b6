"""z = x + residual; y = rms_norm(z, weight)  →  (z, y) = add_rms_norm(x, residual, weight)"""

from __future__ import annotations

from oi.ir.graph import Graph, Node
from oi.ir.ops import Add, AddRmsNorm, RmsNorm
from oi.ir.rewrite import Rewriter, rewrite

__all__ = ["fuse_add_rms_norm"]


def fuse_add_rms_norm(graph: Graph) -> Graph:
    """The sum stays a value, so it may have any other uses; of several norms of one sum the first is fused."""
    return rewrite(graph, _fuse)


def _fuse(node: Node, rewriter: Rewriter) -> None:
    match node:
        case Node(RmsNorm(eps), (total, weight)) if rewriter.producer(weight) is None:
            match rewriter.producer(total):
                case Node(Add(), (x, residual)) as add:
                    z, y = rewriter.emit_multi(AddRmsNorm(eps), x, residual, weight)
                    rewriter.replace(add, z)
                    rewriter.replace(node, y)
