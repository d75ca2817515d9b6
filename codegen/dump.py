"""`--dump-ir`: every phase of the compiler as text and as a drawing, and a page that lists them."""

from __future__ import annotations

from html import escape
from pathlib import Path

from oi.codegen.drawing import draw
from oi.codegen.errors import CompileError
from oi.codegen.pipeline import PIPELINE
from oi.ir.graph import Module
from oi.ir.printer import format_graph

__all__ = ["IrDump"]


class IrDump:
    """Writes `00-input.forward.ir`, `00-input.forward.svg`, `01-cse.forward.ir`, … and `index.html` into a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises CompileError where the folder cannot be made."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise CompileError(f"the dump folder {folder} cannot be made: {e.strerror}; choose another") from e
        self._folder = folder
        self._equations = {step.name: step.equation for step in PIPELINE}
        self._rows: list[str] = []

    def phase(self, name: str, module: Module) -> None:
        """Write what a phase left (an `on_phase` of `pipeline.optimize`)."""
        title = f"{len(self._rows):02}-{name}"
        cells = [f"<td><b>{title}</b><br><small>{escape(self._equations.get(name, ''))}</small></td>"]
        for graph in module.graphs.values():
            stem = f"{title}.{graph.name}"
            (self._folder / f"{stem}.ir").write_text(format_graph(graph))
            (self._folder / f"{stem}.svg").write_text(draw(graph, f"{title} · {graph.name}"))
            links = f'<a href="{stem}.svg">drawing</a> <a href="{stem}.ir">text</a>'
            cells.append(f"<td>{len(graph.nodes)} ops<br>{links}</td>")
        self._rows.append(f"<tr>{''.join(cells)}</tr>")
        names = "".join(f"<th>{escape(graph)}</th>" for graph in module.graphs)
        (self._folder / "index.html").write_text(
            _PAGE.format(head=f"<th>phase</th>{names}", rows="\n".join(self._rows))
        )


_PAGE = """<!doctype html><meta charset="utf-8"><title>IR by phase</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2rem; color: #1e293b }}
td, th {{ text-align: left; padding: .5rem 1rem; border-bottom: 1px solid #e2e8f0; vertical-align: top }}
small {{ color: #64748b }}
</style>
<h1>IR by phase</h1>
<table><tr>{head}</tr>
{rows}
</table>
"""
