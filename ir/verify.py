"""Structural rules of a graph, checked before and after every pass.

1. Names are unique and can be printed.
2. Every operand and output is defined before it is read, and every value is defined once.
3. Operand counts and types fit the op, and result types are those of its shape rule.
4. State is linear: an update overwrites its operand in place, so only the latest version may be read, and what
   the graph leaves as state is the latest version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from oi.ir.errors import VerifyError
from oi.ir.graph import Graph, InputKind, Node, Value
from oi.ir.op import infer_types

__all__ = ["verify"]

_NAME = re.compile(r"[\w.]+", re.ASCII)


def verify(graph: Graph) -> None:
    """Raises VerifyError or TypeMismatch at the first rule that the graph breaks."""
    _verify_names(graph)
    _verify_order(graph)
    for node in graph.nodes:
        _verify_types(graph, node)
    _verify_state(graph)


def _fail(graph: Graph, message: str) -> VerifyError:
    return VerifyError(f"graph {graph.name!r}: {message}")


def _verify_names(graph: Graph) -> None:
    seen: set[str] = set()
    if not _NAME.fullmatch(graph.name):
        raise _fail(graph, "a graph's name is made of letters, digits, _ and .")
    for value in (*graph.inputs, *(result for node in graph.nodes for result in node.results)):
        if not _NAME.fullmatch(value.name):
            raise _fail(graph, f"%{value.name}: a name is made of letters, digits, _ and .")
        if value.name in seen:
            raise _fail(graph, f"%{value.name} is defined twice")
        seen.add(value.name)


def _verify_order(graph: Graph) -> None:
    defined = set(graph.inputs)

    def expect_defined(reader: str, values: Iterable[Value]) -> None:
        for value in values:
            if value not in defined:
                raise _fail(graph, f"{reader} reads %{value.name}, which is not defined before it")

    for node in graph.nodes:
        expect_defined(node.op.name, node.operands)
        defined.update(node.results)
    expect_defined("return", graph.outputs)


def _verify_types(graph: Graph, node: Node) -> None:
    expected = infer_types(node.op, [operand.type for operand in node.operands])
    found = tuple(result.type for result in node.results)
    if found != expected:
        names = ", ".join(f"%{result.name}" for result in node.results)
        raise _fail(graph, f"{names} = {node.op.name} must be {_list(expected)}, found {_list(found)}")


def _list(types: Iterable[object]) -> str:
    return f"({', '.join(map(str, types))})"


def _verify_state(graph: Graph) -> None:
    state_of = {value: value for value in graph.of_kind(InputKind.STATE)}
    latest = dict(state_of)

    def expect_latest(reader: str, value: Value) -> None:
        state = state_of.get(value)
        if state is not None and latest[state] is not value:
            raise _fail(graph, f"{reader} reads %{value.name} after %{latest[state].name} overwrote it")

    for node in graph.nodes:
        for operand in node.operands:
            expect_latest(node.op.name, operand)
        states = {operand.type: state_of[operand] for operand in node.operands if operand in state_of}
        for result in node.results:
            if result.type in states:
                state = state_of[result] = states[result.type]
                latest[state] = result
    for output in graph.outputs:
        expect_latest("return", output)
