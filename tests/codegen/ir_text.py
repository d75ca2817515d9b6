"""Before/After checks of a pass in IR text."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

from oi.ir.graph import Graph
from oi.ir.parser import parse_graph
from oi.ir.printer import format_graph
from oi.ir.verify import verify

__all__ = ["check", "check_unchanged"]


def check(run: Callable[[Graph], Graph], before: str, after: str) -> None:
    """The pass turns `before` into exactly `after`, and leaves that as it is when run again."""
    graph = parse_graph(dedent(before))
    verify(graph)
    result = run(graph)
    verify(result)
    expected = format_graph(parse_graph(dedent(after)))
    assert format_graph(result) == expected, f"found\n{format_graph(result)}"
    again = format_graph(run(result))
    assert again == expected, f"run again: found\n{again}"


def check_unchanged(run: Callable[[Graph], Graph], before: str) -> None:
    check(run, before, before)
