"""Graphs in SSA form: values, nodes, a graph, and a module of graphs.

A `Value` is compared by identity. A graph's inputs are of three kinds: step inputs (written by the host each
step), weights (bound once from a checkpoint) and state (the KV cache, updated in place by the runtime).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from oi.ir.op import Op
from oi.ir.types import TensorType

__all__ = ["Graph", "InputKind", "Module", "Node", "Value"]


class InputKind(Enum):
    INPUT = "input"
    WEIGHT = "weight"
    STATE = "state"


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """One SSA value. `name` is unique in its graph and is what the text form and the artifact print."""

    name: str
    type: TensorType

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """An op applied to operands."""

    op: Op
    operands: tuple[Value, ...]
    results: tuple[Value, ...]

    @property
    def result(self) -> Value:
        """The only result. Raises ValueError where there are several."""
        (value,) = self.results
        return value


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order. Graphs are not edited; passes build new ones (see rewrite.py)."""

    name: str
    inputs: Mapping[Value, InputKind]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]

    def of_kind(self, kind: InputKind) -> Iterator[Value]:
        return (value for value, k in self.inputs.items() if k is kind)


@dataclass(frozen=True)
class Module:
    """The graphs of one model by name: `forward`, then `greedy`, `sample` and `log_probs` on its logits."""

    graphs: Mapping[str, Graph] = field(default_factory=dict)
