"""The text form reads back exactly, and errors say where they are."""

import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oi.ir.errors import ParseError
from oi.ir.graph import Graph, InputKind, Module, Node, Value
from oi.ir.op import OPS
from oi.ir.parser import parse_graph, parse_module
from oi.ir.printer import format_graph, format_module
from oi.ir.types import SYMBOLS, DType, TensorType

NAMES = st.from_regex(r"[A-Za-z0-9_.]{1,12}", fullmatch=True)
DTYPES = st.sampled_from(DType)
DIMS = st.one_of(st.integers(0, 200_000), st.sampled_from(list(SYMBOLS.values())))
TYPES = st.builds(TensorType, DTYPES, st.lists(DIMS, max_size=6).map(tuple))
FLOATS = st.floats(allow_nan=False)
ATTRIBUTES: dict[Any, st.SearchStrategy[Any]] = {
    "int": st.integers(),
    "float": FLOATS,
    "DType": DTYPES,
    "tuple[int, ...]": st.lists(st.integers(), max_size=4).map(tuple),
    "tuple[float, ...]": st.lists(FLOATS, max_size=4).map(tuple),
}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph that is well-formed as text: shapes need not fit."""
    names = iter(draw(st.lists(NAMES, min_size=20, max_size=20, unique=True)))
    inputs = {Value(next(names), draw(TYPES)): draw(st.sampled_from(InputKind)) for _ in range(draw(st.integers(0, 4)))}
    values = list(inputs)
    nodes = []
    for _ in range(draw(st.integers(0, 5))):
        cls = draw(st.sampled_from(list(OPS.values())))
        op = cls(**{field.name: draw(ATTRIBUTES[field.type]) for field in fields(cls)})
        operands = draw(st.lists(st.sampled_from(values), max_size=4)) if values else []
        results = tuple(Value(next(names), draw(TYPES)) for _ in range(draw(st.integers(1, 3))))
        nodes.append(Node(op, tuple(operands), results))
        values.extend(results)
    outputs = draw(st.lists(st.sampled_from(values), max_size=3)) if values else []
    return Graph(draw(NAMES), inputs, tuple(nodes), tuple(outputs))


def shape_of(graph: Graph) -> Any:
    """A graph without identities: values by their place."""
    place: dict[Value, int] = {}
    for value in (*graph.inputs, *(result for node in graph.nodes for result in node.results)):
        place[value] = len(place)
    return (
        graph.name,
        [(value.name, value.type) for value in place],
        list(graph.inputs.values()),
        [(n.op, [place[v] for v in n.operands], [place[v] for v in n.results]) for n in graph.nodes],
        [place[value] for value in graph.outputs],
    )


@given(graphs())
@settings(deadline=None)
def test_graphs_read_back_exactly(graph: Graph) -> None:
    text = format_graph(graph)
    again = parse_graph(text)
    assert shape_of(again) == shape_of(graph)
    assert format_graph(again) == text


@given(st.lists(graphs(), max_size=3, unique_by=lambda graph: graph.name))
@settings(deadline=None, max_examples=30)
def test_modules_read_back_exactly(parts: list[Graph]) -> None:
    module = Module({graph.name: graph for graph in parts})
    again = parse_module(format_module(module))
    assert list(again.graphs) == list(module.graphs)
    assert [shape_of(graph) for graph in again.graphs.values()] == [shape_of(graph) for graph in parts]


@given(st.floats())
def test_floats_read_back_to_the_bit(number: float) -> None:
    (node,) = parse_graph(f"graph @g() {{ %y = constant() {{values=({number!r})}} : f32[1] return }}").nodes
    (again,) = node.op.values  # type: ignore[attr-defined]
    assert (math.isnan(again) and math.isnan(number)) or again.hex() == number.hex()


@given(graphs(), st.data())
@settings(deadline=None, max_examples=200)
def test_damaged_text_is_a_parse_error_or_still_a_graph(graph: Graph, data: st.DataObject) -> None:
    text = format_graph(graph)
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 5)))
    damaged = text[:start] + data.draw(st.text("(){}[]=:,%@#-.ef0 x\n", max_size=3)) + text[stop:]
    error = parse_error(damaged)
    if error is not None:
        lines = damaged.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1


def parse_error(text: str) -> ParseError | None:
    try:
        parse_graph(text)
    except ParseError as e:
        return e
    return None


def test_layout_and_comments_do_not_matter() -> None:
    dense = parse_graph("graph @g(input %x:f32[T,8]){%y=silu(%x):f32[T,8]return %y}")
    loose = parse_graph(
        "# a graph\ngraph @g (input\n%x : f32 [T , 8] ,) { # body\n%y = silu(%x): f32[T,8] return %y\n}"
    )
    assert shape_of(dense) == shape_of(loose)


HEAD = "graph @g(input %x: f32[T,8]) {\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("", 1, 1, "expected 'graph'"),
        ("graph g() { return }", 1, 7, "a graph's name"),
        ("graph @g(inputs %x: f32[T]) { return }", 1, 10, "input, weight, state"),
        ("graph @g(input %x: f16[T]) { return }", 1, 20, "f16"),
        ("graph @g(input %x: f32[X]) { return }", 1, 24, "dimension"),
        ("graph @g(input %x: f32[-1]) { return }", 1, 24, "dimension"),
        ("graph @g(input %x: f32[T], input %x: f32[T]) { return }", 1, 34, "twice"),
        (HEAD + "  %y = silly(%x) : f32[T,8]\n  return %y\n}", 2, 8, "no op 'silly'"),
        (HEAD + "  %y = silu(%z) : f32[T,8]\n  return %y\n}", 2, 13, "%z is not defined"),
        (HEAD + "  %x = silu(%x) : f32[T,8]\n  return %x\n}", 2, 3, "%x is defined twice"),
        (HEAD + "  %y = rms_norm(%x, %x) : f32[T,8]\n  return %y\n}", 2, 8, "lacks eps"),
        (HEAD + "  %y = silu(%x) {eps=1.0} : f32[T,8]\n  return %y\n}", 2, 18, "no attribute 'eps'"),
        (HEAD + "  %y = rms_norm(%x, %x) {eps=one} : f32[T,8]\n  return %y\n}", 2, 30, "expected a number"),
        (HEAD + "  %y, %z = silu(%x) : f32[T,8]\n  return %y\n}", 2, 12, "2 results but 1 types"),
        (HEAD + "  return %x\n", 3, 1, "expected '}', found 'the end'"),
        (HEAD + "  return %x\n} !", 3, 3, "unexpected '!'"),
        (HEAD + "  return %x\n} graph", 3, 3, "expected the end"),
    ],
)
def test_errors_say_where(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(ParseError, match=says) as caught:
        parse_graph(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_a_module_refuses_two_graphs_of_one_name() -> None:
    with pytest.raises(ParseError, match="twice"):
        parse_module("graph @g() { return }\ngraph @g() { return }")
