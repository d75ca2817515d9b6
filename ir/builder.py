"""Build a graph op by op."""

from __future__ import annotations

from oi.ir.errors import VerifyError
from oi.ir.graph import Graph, InputKind, Node, Value
from oi.ir.op import Op, infer_types
from oi.ir.types import TensorType

__all__ = ["Builder"]


class Builder:
    """Collects inputs and nodes; `build` seals them.

    >>> b = Builder("twice")
    >>> x = b.input("x", TensorType(DType.F32, (T, 8)))
    >>> graph = b.build(b.emit(ops.Add(), x, x))
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._inputs: dict[Value, InputKind] = {}
        self._nodes: list[Node] = []
        self._names: set[str] = set()

    def input(self, name: str, type: TensorType) -> Value:
        return self._declare(name, type, InputKind.INPUT)

    def weight(self, name: str, type: TensorType) -> Value:
        return self._declare(name, type, InputKind.WEIGHT)

    def state(self, name: str, type: TensorType) -> Value:
        return self._declare(name, type, InputKind.STATE)

    def emit(self, op: Op, *operands: Value, name: str | None = None) -> Value:
        """Append a node with one result. Raises TypeMismatch where the operands do not fit the op."""
        (value,) = self.emit_multi(op, *operands, names=None if name is None else (name,))
        return value

    def emit_multi(self, op: Op, *operands: Value, names: tuple[str, ...] | None = None) -> tuple[Value, ...]:
        """Append a node with any number of results, named `names` or numbered."""
        types = infer_types(op, [operand.type for operand in operands])
        claimed = [self._claim(self._fresh()) for _ in types] if names is None else [self._claim(n) for n in names]
        results = tuple(Value(n, t) for n, t in zip(claimed, types, strict=True))
        self._nodes.append(Node(op, operands, results))
        return results

    def build(self, *outputs: Value) -> Graph:
        return Graph(self.name, dict(self._inputs), tuple(self._nodes), outputs)

    def _declare(self, name: str, type: TensorType, kind: InputKind) -> Value:
        value = Value(self._claim(name), type)
        self._inputs[value] = kind
        return value

    def _claim(self, name: str) -> str:
        if name in self._names:
            raise VerifyError(f"graph {self.name!r} has two values named %{name}")
        self._names.add(name)
        return name

    def _fresh(self) -> str:
        number = len(self._names)
        while str(number) in self._names:
            number += 1
        return str(number)
