"""A lowered program as text and as a map of its arena: launches from left to right, bytes from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from math import prod

from oi.codegen.folding import plain_name
from oi.runtime.manifest import Buffer, Limits, Program

__all__ = ["draw_memory", "format_program"]

_WIDTH_PER_LAUNCH, _MAX_WIDTH, _HEIGHT, _MARGIN, _HEADER = 40.0, 6000.0, 480.0, 40.0, 90.0
_COLOURS = ("#2563eb", "#0f9960", "#8b3fd1", "#d9480f", "#0891b2", "#a16207")


def format_program(program: Program) -> str:
    """Buffers by kind and offset, then the launches."""
    buffers = sorted(program.buffers.items(), key=lambda item: (item[1].kind, item[1].offset))
    lines = [f"{b.kind:8} {b.offset:12,} {b.dtype}[{','.join(map(str, b.shape))}] %{name}" for name, b in buffers]
    for launch in program.launches:
        choices = [f"{launch.rows} ≤ {v.max_rows}: {v.kernel}" if v.max_rows else v.kernel for v in launch.variants]
        args = ", ".join(f"%{arg}" if isinstance(arg, str) else str(arg) for arg in launch.args)
        lines.append(f"{launch.op}({args})  # {'; '.join(choices)}")
    return "\n".join(lines) + "\n"


def draw_memory(program: Program, arena_bytes: int, limits: Limits, title: str) -> str:
    """The SVG text: a rectangle for each buffer of the arena, over the launches between its first and last use."""
    lives = _lives(program)
    launches = max(len(program.launches), 1)
    column = min(_WIDTH_PER_LAUNCH, _MAX_WIDTH / launches)
    width, height = max(launches * column + 2 * _MARGIN, 700.0), _HEIGHT + _HEADER + _MARGIN
    note = f"{arena_bytes / 2**20:.2f} MiB of arena in all programs, {launches} launches; hover for names"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}"><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{_MARGIN}" y="38" font-family="sans-serif" font-size="20" font-weight="600">{escape(title)}</text>',
        f'<text x="{_MARGIN}" y="60" font-family="sans-serif" font-size="12" fill="#475569">{note}</text>',
        f'<g transform="translate({_MARGIN} {_HEADER})" font-family="monospace" font-size="10">',
        f'<rect width="{launches * column:.1f}" height="{_HEIGHT}" fill="#f8fafc" stroke="#cbd5e1"/>',
        *_rectangles(program, lives, _HEIGHT / max(arena_bytes, 1), column, limits),
        "</g></svg>\n",
    ]
    return "\n".join(parts)


def _lives(program: Program) -> dict[str, tuple[int, int]]:
    """First and last launch that uses each buffer of the arena."""
    lives: dict[str, tuple[int, int]] = {}
    for step, launch in enumerate(program.launches):
        for arg in launch.args:
            if isinstance(arg, str) and program.buffers[arg].kind == "arena":
                lives[arg] = (lives.get(arg, (step, step))[0], step)
    return lives


def _rectangles(
    program: Program, lives: Mapping[str, tuple[int, int]], scale: float, column: float, limits: Limits
) -> Iterator[str]:
    for number, (name, (first, last)) in enumerate(lives.items()):
        buffer = program.buffers[name]
        size = _bytes(buffer, limits)
        x, y, w, h = first * column, buffer.offset * scale, (last - first + 1) * column, size * scale
        colour = _COLOURS[number % len(_COLOURS)]
        hint = f"%{name} {buffer.dtype}{buffer.shape}: bytes {buffer.offset:,} to {buffer.offset + size:,}"
        yield f'<g><title>{escape(hint)}</title><rect x="{x:.1f}" y="{y:.2f}" width="{w:.1f}" height="{h:.2f}"'
        yield f' fill="{colour}" fill-opacity=".3" stroke="{colour}"/>'
        label = plain_name(name)
        if h > 11 and w > 6.2 * len(label):
            yield f'<text x="{x + 3:.1f}" y="{y + 11:.1f}">{escape(label)}</text>'
        yield "</g>"


def _bytes(buffer: Buffer, limits: Limits) -> int:
    bounds = {"T": limits.max_tokens, "S": limits.max_sequences, "R": limits.max_sequences, "E": limits.max_edits}
    return (2 if buffer.dtype == "bf16" else 4) * prod(d if isinstance(d, int) else bounds[d] for d in buffer.shape)
