"""Drawings: boxes do not overlap, alike layers are drawn once, weights and equations are shown."""

from __future__ import annotations

from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oi.codegen.drawing import draw
from oi.codegen.folding import fold
from oi.codegen.layout import Box, place
from oi.codegen.pipeline import optimize
from oi.ir.graph import Module
from oi.ir.types import DType
from oi.models import qwen3
from tests.codegen.random_model import random_config

SVG = "{http://www.w3.org/2000/svg}"


def model(layers: int) -> Module:
    config = {**random_config(np.random.default_rng()), "num_hidden_layers": layers}
    return qwen3.build(qwen3.parse_config(config), DType.F32)


def test_alike_layers_are_drawn_once_before_and_after_fusion() -> None:
    module = model(28)
    spans = [(b.layer, b.last_layer) for b in fold(module.graphs["forward"]).bands]
    assert spans == [(None, None), (0, 0), (1, 27), (None, None)]
    spans = [(b.layer, b.last_layer) for b in fold(optimize(module).graphs["forward"]).bands]
    assert spans == [(None, None), (0, 0), (1, 26), (27, 27), (None, None)]


def test_the_drawing_does_not_grow_with_the_layers() -> None:
    def height(layers: int) -> float:
        svg = ElementTree.fromstring(draw(optimize(model(layers)).graphs["forward"], "title"))
        return float(svg.get("height", "nan"))

    assert height(40) == height(4)


@pytest.mark.parametrize("name", ["forward", "greedy", "sample", "log_probs"])
def test_shows_ops_equations_types_and_weights(name: str) -> None:
    graph = optimize(model(2)).graphs[name]
    svg = ElementTree.fromstring(draw(graph, "a <title>"))
    text = " ".join(svg.itertext())
    assert "a <title>" in text
    for node in graph.nodes:
        assert node.op.name in text
        assert node.op.equation in text
        assert all(repr(result) in text for result in node.results)
        assert all(str(value.type) in text for value in node.operands if value in graph.inputs)


@st.composite
def drawings(draw: st.DrawFn) -> tuple[list[Box], list[tuple[int, int]], list[float]]:
    ranks = sorted(draw(st.lists(st.integers(0, 6), min_size=1, max_size=14)))
    boxes = [Box(draw(st.floats(20, 200)), draw(st.floats(20, 90)), rank) for rank in ranks]
    forward = [(a, b) for a, b in combinations(range(len(boxes)), 2) if ranks[a] < ranks[b]]
    edges = draw(st.lists(st.sampled_from(forward), max_size=16, unique=True)) if forward else []
    return boxes, edges, [0.0] * (max(ranks) + 1)


@settings(deadline=None)
@given(drawings())
def test_boxes_never_overlap_and_edges_end_at_their_boxes(
    drawing: tuple[list[Box], list[tuple[int, int]], list[float]],
) -> None:
    boxes, edges, gaps = drawing
    layout = place(boxes, edges, gaps)
    sides = [(x - box.width / 2, x + box.width / 2) for x, box in zip(layout.x, boxes, strict=True)]
    assert all(left >= -1e-6 and right <= layout.width + 1e-6 for left, right in sides)
    for a, b in combinations(range(len(boxes)), 2):
        beside = sides[a][1] <= sides[b][0] + 1e-6 or sides[b][1] <= sides[a][0] + 1e-6
        apart = layout.y[a] + boxes[a].height <= layout.y[b] or layout.y[b] + boxes[b].height <= layout.y[a]
        assert beside or apart
    for (a, b), route in zip(edges, layout.routes, strict=True):
        assert route[0] == pytest.approx((layout.x[a], layout.y[a] + boxes[a].height))
        assert route[-1] == pytest.approx((layout.x[b], layout.y[b]))
        assert all(y0 <= y1 + 1e-6 for (_, y0), (_, y1) in pairwise(route))
