"""y = f(x) with y unused  →  nothing"""

from __future__ import annotations

from oi.ir.graph import Graph
from oi.ir.rewrite import rewrite

__all__ = ["dce"]


def dce(graph: Graph) -> Graph:
    """Drop the nodes that no output depends on. The rewrite driver does so by itself."""
    return rewrite(graph)
