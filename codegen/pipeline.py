"""The compiler: one ordered list of passes over a graph, verified between each two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oi.codegen.passes.cse import cse
from oi.codegen.passes.dce import dce
from oi.codegen.passes.fuse_add_rms_norm import fuse_add_rms_norm
from oi.codegen.passes.fuse_qkv import fuse_qkv
from oi.codegen.passes.fuse_qkv_norm_rope_write import fuse_qkv_norm_rope_write
from oi.codegen.passes.fuse_swiglu import fuse_swiglu
from oi.codegen.passes.hoist_select_rows import hoist_select_rows
from oi.ir.errors import IRError
from oi.ir.graph import Graph, Module
from oi.ir.verify import verify

__all__ = ["PIPELINE", "Pass", "optimize"]


@dataclass(frozen=True)
class Pass:
    """One step of the compiler: a graph in, an equal graph out."""

    name: str
    precondition: str
    """What must hold for it to find all that it could; it is right without."""
    run: Callable[[Graph], Graph]

    @property
    def equation(self) -> str:
        """What it does, from its module's docstring."""
        return (__import__(self.run.__module__, fromlist=["__doc__"]).__doc__ or "").strip()


PIPELINE: tuple[Pass, ...] = (
    Pass("cse", "none", cse),
    Pass("hoist-select-rows", "before the fusions: it knows only the plain ops", hoist_select_rows),
    Pass("fuse-swiglu", "none", fuse_swiglu),
    Pass("fuse-qkv", "none", fuse_qkv),
    Pass("fuse-qkv-norm-rope-write", "after fuse-qkv, whose columns it takes in", fuse_qkv_norm_rope_write),
    Pass(
        "fuse-add-rms-norm",
        "after hoist-select-rows, so that the last norm is fused at its final size",
        fuse_add_rms_norm,
    ),
    Pass("dce", "last", dce),
)
"""The compiler's middle, in order."""


def optimize(module: Module, on_phase: Callable[[str, Module], None] = lambda name, module: None) -> Module:
    """Run the pipeline over every graph. `on_phase(name, module)` sees the input and what each pass left.

    Raises IRError, naming the pass, where one leaves a graph that is not valid.
    """
    _verify("input", module)
    on_phase("input", module)
    for step in PIPELINE:
        module = Module({name: step.run(graph) for name, graph in module.graphs.items()})
        _verify(step.name, module)
        on_phase(step.name, module)
    return module


def _verify(phase: str, module: Module) -> None:
    for graph in module.graphs.values():
        try:
            verify(graph)
        except IRError as e:
            e.add_note(f"in graph {graph.name!r} after phase {phase!r}")
            raise
