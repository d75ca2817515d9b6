"""The text form of graphs. `parser.py` reads it back exactly.

graph @twice(
  input %x: f32[T,8],
) {
  %y = rms_norm(%x, %weight) {eps=1e-06} : f32[T,8]
  return %y
}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from oi.ir.graph import Graph, Module, Node, Value
from oi.ir.op import Op
from oi.ir.types import DType

__all__ = ["format_graph", "format_module"]


def format_module(module: Module) -> str:
    """All graphs, a blank line between each two."""
    return "\n".join(format_graph(graph) for graph in module.graphs.values())


def format_graph(graph: Graph) -> str:
    inputs = "".join(f"\n  {kind.value} %{value.name}: {value.type}," for value, kind in graph.inputs.items())
    lines = [
        f"graph @{graph.name}({inputs}\n) {{" if inputs else f"graph @{graph.name}() {{",
        *(f"  {_format_node(node)}" for node in graph.nodes),
        f"  return {_names(graph.outputs)}".rstrip(),
        "}\n",
    ]
    return "\n".join(lines)


def _format_node(node: Node) -> str:
    types = ", ".join(str(result.type) for result in node.results)
    return f"{_names(node.results)} = {node.op.name}({_names(node.operands)}){_format_attributes(node.op)} : {types}"


def _names(values: Iterable[Value]) -> str:
    return ", ".join(f"%{value.name}" for value in values)


def _format_attributes(op: Op) -> str:
    attributes = [f"{field.name}={_format_attribute(getattr(op, field.name))}" for field in fields(op)]
    return f" {{{', '.join(attributes)}}}" if attributes else ""


def _format_attribute(value: object) -> str:
    match value:
        case DType():
            return value.value
        case tuple():
            return f"({', '.join(map(_format_attribute, value))})"
        case int() | float():
            return repr(value)
        case _:
            raise TypeError(f"an attribute is an int, a float, a DType or a tuple of them, found {value!r}")
