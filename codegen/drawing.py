"""Draw a graph as SVG: ops as boxes with their weights and inputs, layers as bands, alike layers once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from html import escape

from oi.codegen.folding import Band, Folding, fold, plain_name
from oi.codegen.layout import Box, Layout, place
from oi.ir.graph import Graph, InputKind, Node, Value
from oi.ir.types import DType

__all__ = ["draw"]

_FAMILIES = {
    "product": ("#2563eb", ("embedding", "linear", "linear_concat", "swiglu_linear")),
    "norm": ("#0f9960", ("rms_norm", "add_rms_norm")),
    "attention": ("#8b3fd1", ("rope_angles", "rope", "kv_write", "attention", "qkv_norm_rope_write", "qkv_attention")),
    "elementwise": ("#64748b", ("add", "mul", "silu")),
    "data movement": ("#94a3b8", ("constant", "reshape", "slice_columns", "select_rows")),
    "sampling": ("#d9480f", ("greedy", "sample", "log_probs")),
}
_COLOURS = {op: colour for colour, ops in _FAMILIES.values() for op in ops}
_FUSED = {"linear_concat", "swiglu_linear", "add_rms_norm", "qkv_norm_rope_write", "qkv_attention"}
_CHIPS = {"weight": "#fde68a", "input": "#bae6fd", "state": "#fecdd3", "shared": "#e2e8f0"}

_CHAR, _LINE, _TITLE, _PAD = 6.7, 17.0, 24.0, 9.0
_MARGIN, _HEADER, _BAND_GAP = 40.0, 116.0, 46.0
_INPUTS_WIDTH = 34

_STYLE = """
text { font: 11px ui-monospace, 'DejaVu Sans Mono', Menlo, monospace; fill: #1e293b }
.h { font: 600 20px system-ui, 'DejaVu Sans', sans-serif }
.s { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #475569 }
.op { font: 600 12px system-ui, 'DejaVu Sans', sans-serif } .at { font-size: 10px; opacity: .8 }
.b { font: 600 13px system-ui, 'DejaVu Sans', sans-serif; fill: #64748b }
.e { fill: none; stroke: #64748b; stroke-width: 1.4 } .e:hover, .e.kv:hover { stroke-width: 3.5 }
.kv { stroke: #e11d48; stroke-dasharray: 5 3 }
""".strip()


@dataclass(frozen=True)
class _Row:
    """One line of a box: a chip of some kind, or a result."""

    kind: str
    text: str
    hint: str


@dataclass(frozen=True)
class _Card:
    """A node as it is drawn."""

    node: Node
    attributes: str
    rows: tuple[_Row, ...]

    @property
    def width(self) -> float:
        title = len(self.node.op.name) * 7.6 + len(self.attributes) * 6.2 + 14
        return max(title, *(len(row.text) * _CHAR + 12 for row in self.rows)) + 2 * _PAD

    @property
    def height(self) -> float:
        return _TITLE + _LINE * len(self.rows) + _PAD


def draw(graph: Graph, title: str) -> str:
    """The SVG text. Hovering over a box shows its equation and full types."""
    folding = fold(graph)
    bands = folding.bands
    cards = [_card(graph, node, folding.shared) for band in bands for node in band.nodes]
    edges = _edges(cards, folding)
    ranks, starts = _ranks(bands, [(a, b) for a, b, _ in edges])
    gaps = [_BAND_GAP if r in starts else 0.0 for r in range(max(ranks, default=0) + 1)]
    boxes = [Box(card.width, card.height, rank) for card, rank in zip(cards, ranks, strict=True)]
    layout = place(boxes, [(a, b) for a, b, _ in edges], gaps)
    width, height = max(layout.width + 2 * _MARGIN, 800.0), layout.height + _HEADER + _MARGIN
    body = [
        *_header(title, graph),
        f'<g transform="translate({(width - layout.width) / 2:.1f} {_HEADER:.0f})">',
        *_bands(bands, boxes, layout),
        *(_edge(route, value) for route, (_, _, value) in zip(layout.routes, edges, strict=True)),
        *(line for i, card in enumerate(cards) for line in _box(card, layout.x[i] - boxes[i].width / 2, layout.y[i])),
        "</g>",
    ]
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>{_ARROW}'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *body, "</svg>\n"])


_ARROW = (
    '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#64748b"/></marker></defs>'
)


def _card(graph: Graph, node: Node, shared: frozenset[Value]) -> _Card:
    rows = list(_chips(graph, node, shared))
    rows += [_Row("result", f"→ {plain_name(v.name)} {v.type}", repr(v)) for v in node.results]
    pairs = ((f.name, getattr(node.op, f.name)) for f in fields(node.op))
    return _Card(node, "  ".join(f"{name} {_short(value)}" for name, value in pairs), tuple(rows))


def _short(value: object) -> str:
    match value:
        case DType():
            return value.value
        case float():
            return f"{value:.4g}"
        case tuple() if len(value) > 4:
            return f"({len(value)} numbers)"
        case tuple():
            return "×".join(map(str, value))
    return str(value)


def _chips(graph: Graph, node: Node, shared: frozenset[Value]) -> Iterator[_Row]:
    """Weights and states one a line, step inputs as many as fit."""
    line: list[Value] = []
    for value in dict.fromkeys(node.operands):
        kind = graph.inputs.get(value)
        if kind is InputKind.INPUT:
            if line and len(" · ".join(v.name for v in (*line, value))) > _INPUTS_WIDTH:
                yield _inputs(line)
                line = []
            line.append(value)
        elif kind is not None or value in shared:
            name = "shared" if kind is None else kind.value
            yield _Row(name, f"{plain_name(value.name)} {value.type}", repr(value))
    if line:
        yield _inputs(line)


def _inputs(values: list[Value]) -> _Row:
    return _Row("input", " · ".join(v.name for v in values), "\n".join(map(repr, values)))


def _edges(cards: list[_Card], folding: Folding) -> list[tuple[int, int, Value]]:
    made_by = {result: i for i, card in enumerate(cards) for result in card.node.results}
    edges: dict[tuple[int, int, Value], None] = {}
    for i, card in enumerate(cards):
        for operand in card.node.operands:
            value = folding.stands_for.get(operand, operand)
            if value in made_by and value not in folding.shared:
                edges[made_by[value], i, value] = None
    return list(edges)


def _ranks(bands: tuple[Band, ...], edges: list[tuple[int, int]]) -> tuple[list[int], set[int]]:
    """Each node's rank, below its producers and below all earlier bands; and the ranks at which bands start."""
    producers: dict[int, list[int]] = {}
    for a, b in edges:
        producers.setdefault(b, []).append(a)
    ranks: list[int] = []
    starts: set[int] = set()
    for band in bands:
        base = max(ranks, default=-1) + 1
        starts.add(base)
        for _ in band.nodes:
            ranks.append(max([base, *(ranks[p] + 1 for p in producers.get(len(ranks), []))]))
    return ranks, starts


def _bands(bands: tuple[Band, ...], boxes: list[Box], layout: Layout) -> Iterator[str]:
    first = 0
    for band in bands:
        own = range(first, first + len(band.nodes))
        first += len(band.nodes)
        if band.layer is None:
            continue
        top = min(layout.y[i] for i in own) - _BAND_GAP + 12
        bottom = max(layout.y[i] + boxes[i].height for i in own) + 12
        alike = (band.last_layer or 0) - band.layer
        place = f'x="-24" width="{layout.width + 48:.1f}" height="{bottom - top:.1f}" rx="12" stroke="#cbd5e1"'
        for k in range(min(alike, 2), 0, -1):
            yield f'<rect {place} y="{top:.1f}" transform="translate({6 * k} {6 * k})" fill="#f1f5f9"/>'
        yield f'<rect {place} y="{top:.1f}" fill="#f8fafc"/>'
        label = f"layers {band.layer} – {band.last_layer}, alike: drawn once" if alike else f"layer {band.layer}"
        yield f'<text class="b" x="-10" y="{top + 20:.1f}">{label}</text>'


def _edge(route: list[tuple[float, float]], value: Value) -> str:
    (x, y), *rest = route
    path = f"M{x:.1f} {y:.1f}"
    for nx, ny in rest:
        middle = (y + ny) / 2
        path += f"L{nx:.1f} {ny:.1f}" if nx == x else f"C{x:.1f} {middle:.1f} {nx:.1f} {middle:.1f} {nx:.1f} {ny:.1f}"
        x, y = nx, ny
    style = "e kv" if value.type.rank == 6 else "e"
    return f'<path class="{style}" d="{path}" marker-end="url(#a)"><title>{escape(repr(value))}</title></path>'


def _box(card: _Card, x: float, y: float) -> Iterator[str]:
    op = card.node.op
    colour = _COLOURS.get(op.name, "#64748b")
    fused = op.name in _FUSED
    attributes = "\n".join(f"{f.name} = {_short(getattr(op, f.name))}" for f in fields(op))
    hint = "\n".join(filter(None, [op.name, op.equation, attributes, *map(repr, card.node.results)]))
    yield f'<g transform="translate({x:.1f} {y:.1f})"><title>{escape(hint)}</title>'
    outline = f'width="{card.width:.1f}" height="{card.height:.1f}" rx="7"'
    yield f'<rect {outline} fill="{colour if fused else "#fff"}"/>'
    yield f'<rect {outline} fill="{colour}" fill-opacity=".14" stroke="{colour}" stroke-width="{2 if fused else 1.2}"/>'
    ink = "#fff" if fused else "#1e293b"
    inner = f'width="{card.width - 4:.1f}" height="{card.height - _TITLE - 2:.1f}" rx="5"'
    yield f'<rect x="2" y="{_TITLE:.0f}" {inner} fill="#fff" fill-opacity="{1 if fused else 0.75}"/>'
    yield f'<text class="op" x="{_PAD}" y="16" style="fill:{ink}">{escape(op.name)}'
    yield f'<tspan class="at" dx="8">{escape(card.attributes)}</tspan></text>'
    for i, row in enumerate(card.rows):
        yield from _row(row, card.width, _TITLE + 3 + i * _LINE)
    yield "</g>"


def _row(row: _Row, width: float, y: float) -> Iterator[str]:
    if row.kind in _CHIPS:
        chip = f'x="6" y="{y:.1f}" width="{width - 12:.1f}" height="{_LINE - 3:.0f}" rx="4" fill="{_CHIPS[row.kind]}"'
        yield f"<rect {chip}><title>{escape(row.hint)}</title></rect>"
    yield f'<text x="12" y="{y + 11:.1f}">{escape(row.text)}</text>'


def _header(title: str, graph: Graph) -> Iterator[str]:
    weights = list(graph.of_kind(InputKind.WEIGHT))
    yield f'<text class="h" x="{_MARGIN}" y="38">{escape(title)}</text>'
    yield f'<text class="s" x="{_MARGIN}" y="58">{len(graph.nodes)} ops, {len(weights)} weights</text>'
    families = [(name, colour, "#fff") for name, (colour, _) in _FAMILIES.items()]
    chips = [(name, colour, colour) for name, colour in _CHIPS.items()]
    for y, swatches in ((70, [*families, ("fused: filled", "#334155", "#334155")]), (90, chips)):
        x = _MARGIN
        for name, stroke, fill in swatches:
            yield f'<rect x="{x:.0f}" y="{y}" width="12" height="12" rx="3" fill="{fill}" stroke="{stroke}"/>'
            yield f'<text class="s" x="{x + 17:.0f}" y="{y + 10}">{name}</text>'
            x += 36 + 6.9 * len(name)
