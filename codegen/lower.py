"""A planned graph → the program that the runtime runs: buffers and a list of launches."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from oi.codegen.errors import CompileError
from oi.codegen.plan import ConstantPool, Plan, plan_memory
from oi.codegen.target import Lowering, Target
from oi.codegen.weights import place_weights
from oi.ir.graph import Graph, Module, Node
from oi.ir.ops import Constant, Reshape
from oi.runtime.manifest import Launch, Limits, Program, Variant

__all__ = ["Lowered", "lower_module"]


@dataclass
class Lowered:
    """All programs of a module, and what they share."""

    programs: dict[str, Program] = field(default_factory=dict)
    kernels: dict[str, object] = field(default_factory=dict)
    """Symbol → the target's source, in order of first use."""
    constants: ConstantPool = field(default_factory=ConstantPool)
    arena_bytes: int = 0
    weight_bytes: int = 0
    neighbours: dict[tuple[str, ...], None] = field(default_factory=dict)
    """Groups of weights that follow each other in memory, in order of first use."""


def lower_module(module: Module, target: Target, limits: Limits) -> Lowered:
    """Plan memory and ask the target for kernels. Raises CompileError, MissingKernel."""
    lowered = Lowered()
    for name, graph in module.graphs.items():
        # A step of `decode` has a token for each sequence.
        own = replace(limits, max_tokens=limits.max_sequences) if name == "decode" else limits
        plan = plan_memory(graph, own, lowered.constants)
        lowered.programs[name] = Program(buffers=plan.buffers, launches=_launches(graph, plan, target, lowered))
        lowered.arena_bytes = max(lowered.arena_bytes, plan.arena_bytes)
    _place_weights(lowered)
    return lowered


def _place_weights(lowered: Lowered) -> None:
    """Give the weights of all programs their offsets in one block."""
    weights = {
        name: buffer
        for program in lowered.programs.values()
        for name, buffer in program.buffers.items()
        if buffer.kind == "weight"
    }
    offsets, lowered.weight_bytes = place_weights(weights, lowered.neighbours)
    for name, program in lowered.programs.items():
        placed = {n: replace(b, offset=offsets[n]) if b.kind == "weight" else b for n, b in program.buffers.items()}
        lowered.programs[name] = replace(program, buffers=placed)


def _launches(graph: Graph, plan: Plan, target: Target, lowered: Lowered) -> list[Launch]:
    launches = []
    for node in graph.nodes:
        if isinstance(node.op, (Reshape, Constant)):
            continue
        lowering = target.lower(node)
        _check(node, lowering)
        for variant in lowering.variants:
            lowered.kernels.setdefault(variant.kernel, variant.source)
        if lowering.neighbours:
            lowered.neighbours[tuple(value.name for value in lowering.neighbours)] = None
        launches.append(_launch(node, lowering, plan))
    return launches


def _launch(node: Node, lowering: Lowering, plan: Plan) -> Launch:
    """Arguments in the order of docs/architecture.md: operands, results that have bytes of their own, scalars."""
    results = [result for result in node.results if result not in plan.in_place]
    return Launch(
        op=node.op.name,
        rows=lowering.rows,
        variants=[Variant(kernel=v.kernel, max_rows=v.max_rows) for v in lowering.variants],
        args=[*(plan.names[value] for value in (*node.operands, *results)), *lowering.scalars],
    )


def _check(node: Node, lowering: Lowering) -> None:
    *bounded, last = [v.max_rows for v in lowering.variants] or [0]
    bounds = [b for b in bounded if b is not None]
    if last is not None or len(bounds) != len(bounded) or bounds != sorted(set(bounds)):
        raise CompileError(
            f"the target's variants of {node.op.name} must rise in max_rows and end with one without, "
            f"found {[v.max_rows for v in lowering.variants]}"
        )
