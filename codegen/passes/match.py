"""What several passes ask of a value before they match on the node that made it."""

from __future__ import annotations

from oi.ir.graph import Node, Value
from oi.ir.rewrite import Rewriter

__all__ = ["depends_on", "sole"]


def sole(rewriter: Rewriter, value: Value) -> Node | None:
    """The node that makes a value which is used once: only then may a fusion do away with it."""
    return rewriter.producer(value) if rewriter.single_use(value) else None


def depends_on(rewriter: Rewriter, values: tuple[Value, ...], node: Node) -> bool:
    """Whether one of the values is computed from the node's results."""
    todo, seen = list(values), set[Value]()
    while todo:
        value = todo.pop()
        if value in seen:
            continue
        seen.add(value)
        producer = rewriter.producer(value)
        if producer is node:
            return True
        todo.extend(() if producer is None else producer.operands)
    return False
