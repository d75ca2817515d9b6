"""What a compile target gives: a kernel for each node, and a library of them.

The compiler's middle knows no hardware. It asks the target to lower every node of the final graphs, collects
the kernels it names, and asks it to write them as one library. Two nodes that want the same kernel name the
same symbol; the library is given each symbol once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oi.ir.graph import Module, Node, Value
from oi.ir.types import DType
from oi.runtime import manifest
from oi.runtime.errors import OiError

__all__ = ["KernelVariant", "Library", "Lowering", "MissingKernel", "Target"]


class MissingKernel(OiError):
    """The target has no kernel for an op at these shapes."""

    def __init__(self, node: Node, target: str, mend: str) -> None:
        """`mend` says what to do: the file to add a kernel to, or the constraint that the shapes break."""
        operands = ", ".join(str(v.type) for v in node.operands)
        results = ", ".join(str(v.type) for v in node.results)
        super().__init__(f"target {target} has no kernel for {node.op.name}({operands}) -> ({results}): {mend}")


@dataclass(frozen=True)
class KernelVariant:
    """One kernel that computes a node, and the row counts it is meant for."""

    kernel: str
    """Symbol in the library. It determines the kernel: equal symbols have equal sources."""
    max_rows: int | None
    """Largest size of `Lowering.rows` that it is meant for; None has no bound."""
    source: object
    """What `Target.write_library` needs to build it; nobody else looks inside."""


@dataclass(frozen=True)
class Lowering:
    """How one node is launched.

    Every variant takes the same arguments: the node's operands, its results (those that are an operand's
    state after an update, like kv, left out), then `scalars`.
    """

    rows: str
    """Symbolic dim ("T", "S" or "R") whose size in a step picks the variant: the first that fits."""
    variants: tuple[KernelVariant, ...]
    """By rising `max_rows`; the last one, and only that, has none."""
    scalars: tuple[int, ...] = ()
    """Attributes passed by value because otherwise equal nodes differ in them (layer)."""
    neighbours: tuple[Value, ...] = ()
    """Weights among the operands that the kernels read as one array: they follow each other in memory."""


@dataclass(frozen=True)
class Library:
    """Files that `Target.write_library` wrote, relative to its folder."""

    path: str
    """The kernels."""
    support: tuple[str, ...] = ()
    """Libraries that must be loaded before it, in order."""
    notes: tuple[str, ...] = ()
    """What whoever compiles should know, a line each."""


class Target(Protocol):
    """A machine to compile for. Implementations are immutable and need no device of that kind."""

    @property
    def activations(self) -> DType:
        """Dtype of the activations between kernels."""

    def specialize(self, module: Module) -> Module:
        """The optimized module with the graphs that this target runs: as it is, or more of them."""

    def lower(self, node: Node) -> Lowering:
        """The kernels of a node of a final graph. `reshape` and `constant` are never asked for.

        Cheap: it names kernels and describes their sources; building is `write_library`'s work.
        Raises MissingKernel.
        """

    def write_library(self, kernels: Mapping[str, object], folder: Path, on_kernel: Callable[[str], None]) -> Library:
        """Build `kernels` (symbol → source) into a library in `folder`, with what it needs to load.

        `on_kernel(symbol)` is called as each kernel is done, from the calling thread.
        """

    def manifest_target(self) -> manifest.Target:
        """What the machine that runs the artifact must be."""

    def versions(self) -> dict[str, str]:
        """Versions of the tools that build the library, by name (for `Manifest.built_by`)."""
