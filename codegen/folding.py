"""Cut a graph into its layers for a drawing, and draw layers that are alike once."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from oi.ir.graph import Graph, Node, Value

__all__ = ["Band", "Folding", "fold", "plain_name"]

_LAYER = re.compile(r"\blayers\.(\d+)\.")


@dataclass(frozen=True)
class Band:
    """Consecutive nodes of one layer (None: of none), standing for layers [layer, last_layer] that are alike."""

    layer: int | None
    last_layer: int | None
    nodes: tuple[Node, ...]


def plain_name(name: str) -> str:
    """A value's name without its layer."""
    return _LAYER.sub("", name)


@dataclass(frozen=True)
class Folding:
    """What to draw of a graph."""

    bands: tuple[Band, ...]
    stands_for: dict[Value, Value]
    """For each result that is not drawn, the one that is drawn in its stead."""
    shared: frozenset[Value]
    """Results that more than two bands read, folded ones counted."""


def fold(graph: Graph) -> Folding:
    """Neighbouring layers that are alike become one band."""
    bands = _cut(graph)
    signatures = _signatures(bands)
    folded: list[Band] = []
    stands_for: dict[Value, Value] = {}
    for band, signature, before in zip(bands, signatures, [None, *signatures], strict=False):
        if band.layer is None or signature != before:
            folded.append(band)
            continue
        drawn = folded[-1]
        folded[-1] = Band(drawn.layer, band.layer, drawn.nodes)
        for node, other in zip(band.nodes, drawn.nodes, strict=True):
            stands_for |= dict(zip(node.results, other.results, strict=True))
    return Folding(tuple(folded), stands_for, _shared(graph, bands))


def _shared(graph: Graph, bands: list[Band]) -> frozenset[Value]:
    readers: dict[Value, set[int]] = {}
    for b, band in enumerate(bands):
        for value in (operand for node in band.nodes for operand in node.operands):
            readers.setdefault(value, set()).add(b)
    return frozenset(value for value, where in readers.items() if len(where) > 2 and value not in graph.inputs)


def _cut(graph: Graph) -> list[Band]:
    layers = [_layer_of(node) for node in graph.nodes]
    runs: list[tuple[int | None, list[Node]]] = []
    for i, node in enumerate(graph.nodes):
        layer = layers[i]
        current = runs[-1][0] if runs else None
        if current is not None:
            following = next((n for n in layers[i:] if n is not None), None)
            if layer is None and following is not None and following <= current:
                layer = current
            elif layer is not None:
                layer = max(layer, current)
        if not runs or runs[-1][0] != layer:
            runs.append((layer, []))
        runs[-1][1].append(node)
    return [Band(layer, layer, tuple(nodes)) for layer, nodes in runs]


def _layer_of(node: Node) -> int | None:
    """The layer that a node's attribute, its weights or else its results tell."""
    layer = getattr(node.op, "layer", None)
    if isinstance(layer, int):
        return layer
    names = [v.name for v in reversed(node.operands) if v.type.rank and _is_static(v)] + [v.name for v in node.results]
    found = [int(match[1]) for match in map(_LAYER.search, names) if match]
    return found[0] if found else None


def _is_static(value: Value) -> bool:
    return all(isinstance(d, int) for d in value.type.shape)


def _signatures(bands: list[Band]) -> list[object]:
    """Equal for neighbouring bands that compute the same thing, each from what the one before it left."""
    where = {
        result: (b, i, r)
        for b, band in enumerate(bands)
        for i, node in enumerate(band.nodes)
        for r, result in enumerate(node.results)
    }

    def operand(band: int, value: Value) -> object:
        if value not in where:
            return plain_name(value.name), value.type
        b, i, r = where[value]
        return (band - b, i, r) if band - b <= 1 else (value.name,)

    def attributes(node: Node) -> tuple[object, ...]:
        return tuple(getattr(node.op, f.name) for f in fields(node.op) if f.name != "layer")

    return [
        tuple(
            (type(n.op), attributes(n), tuple(operand(b, v) for v in n.operands), tuple(v.type for v in n.results))
            for n in band.nodes
        )
        for b, band in enumerate(bands)
    ]
