"""Where every value of a graph lives: liveness → buffers at fixed offsets of one arena.

input, output   io buffers, found by name                weight     bound from the checkpoint by name
state           one buffer for all its versions          constant   at an offset of the constants file
the rest        at an offset of the arena, reused once dead; a reshape shares its operand's bytes
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from oi.codegen.arena import Span, aligned, assign_offsets
from oi.codegen.errors import CompileError
from oi.ir.graph import Graph, InputKind, Value
from oi.ir.ops import Constant, Reshape
from oi.ir.types import Sym, TensorType
from oi.runtime.manifest import Buffer, Limits

__all__ = ["ConstantPool", "Plan", "bytes_of", "plan_memory"]

BufferKind = Literal["io", "weight", "constant", "state", "arena"]

_INPUT_KINDS: dict[InputKind, BufferKind] = {
    InputKind.INPUT: "io",
    InputKind.WEIGHT: "weight",
    InputKind.STATE: "state",
}


def bytes_of(type: TensorType, limits: Limits) -> int:
    """Bytes of a tensor at its largest. Raises CompileError for dims that the limits do not bound (N, P)."""
    bounds = {"T": limits.max_tokens, "S": limits.max_sequences, "R": limits.max_sequences, "E": limits.max_edits}
    try:
        return type.dtype.itemsize * prod(bounds[d.name] if isinstance(d, Sym) else d for d in type.shape)
    except KeyError as e:
        raise CompileError(f"an intermediate value of type {type} has no bound for its dim {e}") from None


@dataclass
class ConstantPool:
    """The bytes of the constants file, equal constants once; shared by all programs."""

    data: bytearray = field(default_factory=bytearray)
    _offsets: dict[tuple[float, ...], int] = field(default_factory=dict)

    def add(self, values: tuple[float, ...]) -> int:
        """The offset of these values as little-endian float32."""
        if values not in self._offsets:
            self.data.extend(bytes(aligned(len(self.data)) - len(self.data)))
            self._offsets[values] = len(self.data)
            self.data.extend(array("f", values).tobytes())
        return self._offsets[values]


@dataclass(frozen=True)
class Plan:
    """A graph's buffers."""

    buffers: dict[str, Buffer]
    """By name: that of the value, or of its state."""
    names: dict[Value, str]
    """The buffer of each value."""
    in_place: frozenset[Value]
    """Results that are an operand's bytes: of reshape, and the next version of a state."""
    arena_bytes: int


def plan_memory(graph: Graph, limits: Limits, constants: ConstantPool) -> Plan:
    """Place all values of a verified graph.

    Raises CompileError where the graph cannot be run in fixed memory: an output that is an input or a view, a
    reshape of a buffer that is bound by name.
    """
    owners = _owners(graph)
    kinds = _kinds(graph, owners)
    offsets, arena_bytes = _place_arena(graph, owners, kinds, limits)
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            offsets[node.result] = constants.add(node.op.values)
    buffers: dict[str, Buffer] = {}
    names: dict[Value, str] = {}
    for value, owner in owners.items():
        kind = kinds[owner]
        names[value] = owner.name if kind == "state" else value.name
        if value is owner or kind in ("arena", "constant"):
            buffers[value.name] = _buffer(kind, value.type, offsets.get(owner, 0))
        elif kind != "state":
            raise CompileError(f"%{value.name} is a view of %{owner.name}, a buffer bound by name: give it its own")
    in_place = frozenset(value for value, owner in owners.items() if value is not owner)
    return Plan(_launched(graph, names, buffers), names, in_place, arena_bytes)


def _owners(graph: Graph) -> dict[Value, Value]:
    """Each value's first name: the input or result whose bytes it has.

    As in ir/verify.py, a result of the type of a state among the operands is that state after the update.
    """
    owners = {value: value for value in graph.inputs}
    for node in graph.nodes:
        states = {v.type: owners[v] for v in node.operands if graph.inputs.get(owners[v]) is InputKind.STATE}
        for result in node.results:
            view_of = node.operands[0] if isinstance(node.op, Reshape) else result
            owners[result] = states.get(result.type) or owners.get(view_of, result)
    return owners


def _kinds(graph: Graph, owners: dict[Value, Value]) -> dict[Value, BufferKind]:
    """The kind of buffer that each owner gets."""
    kinds: dict[Value, BufferKind] = dict.fromkeys(owners.values(), "arena")
    kinds |= {value: _INPUT_KINDS[kind] for value, kind in graph.inputs.items()}
    kinds |= {node.result: "constant" for node in graph.nodes if isinstance(node.op, Constant)}
    for output in graph.outputs:
        owner = owners[output]
        if kinds[owner] == "state":
            continue
        if owner is not output or kinds[owner] != "arena":
            raise CompileError(f"output %{output.name} of {graph.name!r} must be computed by an op of its own")
        kinds[output] = "io"
    return kinds


def _place_arena(
    graph: Graph, owners: dict[Value, Value], kinds: dict[Value, BufferKind], limits: Limits
) -> tuple[dict[Value, int], int]:
    """The offset of each owner in the arena, and the arena's bytes."""
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for step, node in enumerate(graph.nodes):
        for value in (*node.operands, *node.results):
            owner = owners[value]
            if kinds[owner] == "arena":
                first.setdefault(owner, step)
                last[owner] = step
    offsets, arena_bytes = assign_offsets([Span(bytes_of(v.type, limits), first[v], last[v]) for v in first])
    return dict(zip(first, offsets, strict=True)), arena_bytes


def _launched(graph: Graph, names: dict[Value, str], buffers: dict[str, Buffer]) -> dict[str, Buffer]:
    """The buffers that launches name, and the graph's own interface."""
    used = {value.name for value, kind in graph.inputs.items() if kind is not InputKind.WEIGHT}
    for node in graph.nodes:
        if not isinstance(node.op, (Reshape, Constant)):
            used |= {names[value] for value in (*node.operands, *node.results)}
    return {name: buffer for name, buffer in buffers.items() if name in used}


def _buffer(kind: BufferKind, type: TensorType, offset: int) -> Buffer:
    shape: list[int | str] = [d.name if isinstance(d, Sym) else d for d in type.shape]
    return Buffer(kind=kind, dtype=type.dtype.value, shape=shape, offset=offset)
