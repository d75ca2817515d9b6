"""select_rows(f(x, …), rows)  →  f(select_rows(x, rows), …), f working row by row"""

from __future__ import annotations

from oi.ir.graph import Graph, Node, Value
from oi.ir.op import Op
from oi.ir.ops import Add, Linear, Mul, RmsNorm, SelectRows, Silu, SliceColumns
from oi.ir.rewrite import Rewriter, rewrite

__all__ = ["hoist_select_rows"]

_ROW_WISE: dict[type[Op], int] = {Add: 2, Linear: 1, Mul: 2, RmsNorm: 1, Silu: 1, SliceColumns: 1}
"""Ops whose row t depends on row t alone of this many leading operands, and on the rest (weights) as they are."""


def hoist_select_rows(graph: Graph) -> Graph:
    """Compute the rows that are sampled and no others, as far up as nothing else needs the rest.

    In Qwen3 that is the head, the final norm, and of the last layer all that comes after attention.
    """
    return rewrite(graph, _hoist)


def _hoist(node: Node, rewriter: Rewriter) -> None:
    match node:
        case Node(SelectRows(), (selected, rows)):
            producer = rewriter.producer(selected)
            if producer is None or type(producer.op) not in _ROW_WISE or not _only_selected(selected, rows, rewriter):
                return
            count = _ROW_WISE[type(producer.op)]
            operands = [_select(x, rows, rewriter) for x in producer.operands[:count]]
            result = rewriter.emit(producer.op, *operands, *producer.operands[count:])
            for selection in rewriter.users(selected):
                rewriter.replace(selection, result)


def _only_selected(value: Value, rows: Value, rewriter: Rewriter) -> bool:
    """Every use of the value is a selection of these rows, so that the full value is needed no more."""
    selections = (isinstance(u.op, SelectRows) and u.operands == (value, rows) for u in rewriter.users(value))
    return not rewriter.is_output(value) and all(selections)


def _select(x: Value, rows: Value, rewriter: Rewriter) -> Value:
    """x's rows, selected once."""
    for user in rewriter.users(x):
        if isinstance(user.op, SelectRows) and user.operands == (x, rows):
            return user.result
    return rewriter.emit(SelectRows(), x, rows, name=f"{x.name}.rows")
