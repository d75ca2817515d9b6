"""`--dump-ir`: every phase of the compiler as text and as a drawing, and a page that lists them."""

from __future__ import annotations

from html import escape
from pathlib import Path

from oi.codegen.drawing import draw
from oi.codegen.errors import CompileError
from oi.codegen.lower import Lowered
from oi.codegen.memory_map import draw_memory, format_program
from oi.codegen.pipeline import PIPELINE
from oi.ir.graph import Module
from oi.ir.printer import format_graph
from oi.runtime.manifest import Limits

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
        title = self._title(name)
        cells = []
        for graph in module.graphs.values():
            stem, note = f"{title}.{graph.name}", f"{graph.name}: {len(graph.nodes)} ops"
            cells.append(self._write(f"{stem}.ir", format_graph(graph), draw(graph, f"{title} · {graph.name}"), note))
        self._add_row(title, self._equations.get(name, ""), cells)

    def plan(self, lowered: Lowered, limits: Limits) -> None:
        """Write the last phase: launches and buffers, and the arena over time."""
        title = self._title("memory-plan")
        cells = []
        for name, program in lowered.programs.items():
            drawing = draw_memory(program, lowered.arena_bytes, limits, f"{title} · {name}")
            note = f"{name}: {len(program.launches)} launches"
            cells.append(self._write(f"{title}.{name}.txt", format_program(program), drawing, note))
        self._add_row(title, "liveness → offsets of one arena; ops → launches of the target's kernels", cells)

    def _title(self, name: str) -> str:
        return f"{len(self._rows):02}-{name}"

    def _write(self, file: str, text: str, drawing: str, note: str) -> str:
        """Write both forms under one stem; return the page's cell for them."""
        picture = Path(file).with_suffix(".svg")
        (self._folder / file).write_text(text)
        (self._folder / picture).write_text(drawing)
        return f'<td>{note}<br><a href="{picture}">drawing</a> <a href="{file}">text</a></td>'

    def _add_row(self, title: str, equation: str, cells: list[str]) -> None:
        self._rows.append(f"<tr><td><b>{title}</b><br><small>{escape(equation)}</small></td>{''.join(cells)}</tr>")
        (self._folder / "index.html").write_text(_PAGE.format(rows="\n".join(self._rows)))


_PAGE = """<!doctype html><meta charset="utf-8"><title>IR by phase</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2rem; color: #1e293b }}
td {{ text-align: left; padding: .5rem 1rem; border-bottom: 1px solid #e2e8f0; vertical-align: top }}
small {{ color: #64748b }}
</style>
<h1>IR by phase</h1>
<table>
{rows}
</table>
"""
