"""forward, where every sequence has one token and every row is sampled, in order:  S = R = T,  select_rows(x) → x"""

from __future__ import annotations

from oi.ir.graph import Graph, Node, Value
from oi.ir.ops import SelectRows
from oi.ir.types import R, S, T, TensorType

__all__ = ["specialize_decode"]


def specialize_decode(forward: Graph) -> Graph:
    """The graph `decode`. A padded sequence (query_lens 0) still has a row, of which nothing is used."""
    values: dict[Value, Value] = {}

    def unified(value: Value) -> Value:
        if value not in values:
            shape = tuple(T if dim in (S, R) else dim for dim in value.type.shape)
            values[value] = Value(value.name, TensorType(value.type.dtype, shape))
        return values[value]

    inputs = {unified(value): kind for value, kind in forward.inputs.items() if value.name != "rows"}
    nodes = []
    for node in forward.nodes:
        if isinstance(node.op, SelectRows):
            values[node.result] = unified(node.operands[0])
            continue
        nodes.append(Node(node.op, tuple(map(unified, node.operands)), tuple(map(unified, node.results))))
    return Graph("decode", inputs, tuple(nodes), tuple(map(unified, forward.outputs)))
