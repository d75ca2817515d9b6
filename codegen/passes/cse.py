"""y = f(x); z = f(x)  →  y = f(x); z = y"""

from __future__ import annotations

from oi.ir.graph import Graph, Node, Value
from oi.ir.op import Op
from oi.ir.rewrite import Rewriter, rewrite

__all__ = ["cse"]


def cse(graph: Graph) -> Graph:
    """Compute equal things once. Two outputs stay two values, since each is a buffer of its own."""
    known: dict[tuple[Op, tuple[Value, ...]], Value] = {}

    def reuse(node: Node, rewriter: Rewriter) -> None:
        key = (node.op, node.operands)
        first = rewriter.producer(known.setdefault(key, node.results[0]))
        if first is None or (first.op, first.operands) != key:  # gone or changed since it was noted
            known[key] = node.results[0]
        elif first is not node and not any(map(rewriter.is_output, node.results)):
            rewriter.replace(node, *first.results)

    return rewrite(graph, reuse)
