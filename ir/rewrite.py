"""The rewrite driver: offer every node to patterns until none of them changes the graph.

    def add_rms_norm(node: Node, rewriter: Rewriter) -> None:
        "rms_norm(x + y) → add_rms_norm(x, y)"
        if not isinstance(node.op, RmsNorm):
            return
        x, weight = node.operands
        add = rewriter.producer(x)
        if add is not None and isinstance(add.op, Add):
            z, y = rewriter.emit_multi(AddRmsNorm(node.op.eps), *add.operands, weight)
            rewriter.replace(add, z)
            rewriter.replace(node, y)

    graph = rewrite(graph, add_rms_norm)

The interface:

    rewrite(graph, *patterns) -> Graph        fixpoint; without patterns: dead code elimination
    Pattern = Callable[[Node, Rewriter], None]
    rewriter.producer(value) -> Node | None   the node that defines it; None for a graph input
    rewriter.users(value) -> tuple[Node, ...] the nodes that read it, each once, in graph order
    rewriter.is_output(value) -> bool         a graph output counts as a use, though no node reads it
    rewriter.single_use(value) -> bool        read exactly once: by one operand, or as one output
    rewriter.emit(op, *operands, name=None) -> Value
    rewriter.emit_multi(op, *operands, names=None) -> tuple[Value, ...]
    rewriter.replace(node, *new_values)       one new value per result of the node; the node is gone afterwards

A pattern emits only once it has matched. It may replace nodes other than the one it was offered (a fused node
replaces several), in any order. A node object may be stale after a replace (its operands changed): ask again with
`producer`. Nodes whose results nothing uses are dropped at once, so `users` never counts dead code.

Names: an emitted value without a name takes the name of the value that it replaces, so `%logits` stays `%logits`.
Order: emitted nodes stand where the offered node stood, their producers before them; everything else stays put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace as with_fields

from oi.ir.errors import VerifyError
from oi.ir.graph import Graph, Node, Value
from oi.ir.op import Op, infer_types

__all__ = ["Pattern", "Rewriter", "rewrite"]


class Rewriter:
    """A graph while it is being rewritten. Use through `rewrite`."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._outputs = list(graph.outputs)
        self._position: dict[Node, int] = {}
        """Live nodes; emitted ones share the position of the node that was offered."""
        self._producer: dict[Value, Node] = {}
        self._users: dict[Value, dict[Node, None]] = {value: {} for value in graph.inputs}
        self._taken = {value.name for value in graph.inputs}
        self._unnamed: set[Value] = set()
        self._rename: dict[Value, str] = {}
        self._cursor = 0
        self._changes = 0
        for position, node in enumerate(graph.nodes):
            self._insert(node, position)
            self._taken.update(value.name for value in node.results)
        self._erase_dead(graph.nodes)

    def producer(self, value: Value) -> Node | None:
        return self._producer.get(value)

    def users(self, value: Value) -> tuple[Node, ...]:
        return tuple(sorted(self._users[value], key=self._position.__getitem__))

    def is_output(self, value: Value) -> bool:
        return value in self._outputs

    def single_use(self, value: Value) -> bool:
        reads = sum(node.operands.count(value) for node in self._users[value])
        return reads + self._outputs.count(value) == 1

    def emit(self, op: Op, *operands: Value, name: str | None = None) -> Value:
        """Add a node with one result. Raises TypeMismatch where the operands do not fit the op."""
        (value,) = self.emit_multi(op, *operands, names=None if name is None else (name,))
        return value

    def emit_multi(self, op: Op, *operands: Value, names: tuple[str, ...] | None = None) -> tuple[Value, ...]:
        """Add a node with any number of results."""
        types = infer_types(op, [operand.type for operand in operands])
        results = tuple(
            Value(self._claim(name), type) for name, type in zip(names or (None,) * len(types), types, strict=True)
        )
        if names is None:
            self._unnamed.update(results)
        self._insert(Node(op, operands, results), self._cursor)
        return results

    def replace(self, node: Node, *new_values: Value) -> None:
        """Let every use of the node's results read `new_values` instead.

        Raises VerifyError where a type differs, or where a new value is computed from what it replaces.
        """
        for old, new in zip(node.results, new_values, strict=True):
            if old.type != new.type:
                raise VerifyError(f"cannot replace {old!r} by {new!r}: the types differ")
            if old in self._operands(new):
                raise VerifyError(f"cannot replace {old!r} by {new!r}: the latter is computed from the former")
            self._inherit_name(old, new)
            for user in self.users(old):
                self._reconnect(user, old, new)
            self._outputs = [new if value is old else value for value in self._outputs]
        self._erase_dead([self._producer[node.results[0]]])
        self._changes += 1

    def _operands(self, value: Value) -> tuple[Value, ...]:
        producer = self._producer.get(value)
        return producer.operands if producer is not None else ()

    def _inherit_name(self, old: Value, new: Value) -> None:
        becomes_output = self.is_output(old) and not self.is_output(new) and new in self._producer
        if new in self._unnamed or becomes_output:
            self._unnamed.discard(new)
            self._rename[new] = self._rename.get(old, old.name)

    def _reconnect(self, user: Node, old: Value, new: Value) -> None:
        position = self._remove(user)
        self._insert(with_fields(user, operands=tuple(new if o is old else o for o in user.operands)), position)

    def _claim(self, name: str | None) -> str:
        if name is None:
            name = next(n for n in map(str, range(len(self._taken), 2**63)) if n not in self._taken)
        elif name in self._taken:
            raise VerifyError(f"graph {self._graph.name!r} has already a value named %{name}")
        self._taken.add(name)
        return name

    def _insert(self, node: Node, position: int) -> None:
        self._position[node] = position
        for result in node.results:
            self._producer[result] = node
            self._users.setdefault(result, {})
        for operand in node.operands:
            self._users[operand][node] = None

    def _remove(self, node: Node) -> int:
        for operand in node.operands:
            self._users[operand].pop(node, None)
        return self._position.pop(node)

    def _erase_dead(self, suspects: Iterable[Node]) -> None:
        """Drop those suspects that nothing uses, and then what only they used."""
        pending = list(suspects)
        while pending:
            node = pending.pop()
            if node not in self._position or any(self._users[r] or self.is_output(r) for r in node.results):
                continue
            self._remove(node)
            for result in node.results:
                del self._producer[result]
            pending.extend(self._producer[operand] for operand in node.operands if operand in self._producer)

    def _ordered(self) -> list[Node]:
        """Live nodes by position, each after the producers of its operands."""
        ordered: dict[Node, None] = {}

        def place(node: Node) -> None:
            if node in ordered:
                return
            for operand in node.operands:
                if operand in self._producer:
                    place(self._producer[operand])
            ordered[node] = None

        for node in sorted(self._position, key=self._position.__getitem__):
            place(node)
        return list(ordered)

    def _sweep(self, patterns: Iterable[Callable[[Node, Rewriter], None]]) -> None:
        """Offer each node to each pattern once. Nodes are found by result, for their objects go stale."""
        for first_result in [node.results[0] for node in self._ordered()]:
            for pattern in patterns:
                node = self._producer.get(first_result)
                if node is None:
                    break
                self._cursor = self._position[node]
                pattern(node, self)

    def _seal(self) -> Graph:
        self._erase_dead(self._ordered())
        renamed = {value: Value(name, value.type) for value, name in self._rename.items() if value in self._producer}

        def final(values: Iterable[Value]) -> tuple[Value, ...]:
            return tuple(renamed.get(value, value) for value in values)

        nodes = tuple(Node(n.op, final(n.operands), final(n.results)) for n in self._ordered())
        return Graph(self._graph.name, self._graph.inputs, nodes, final(self._outputs))


Pattern = Callable[[Node, Rewriter], None]


def rewrite(graph: Graph, *patterns: Pattern) -> Graph:
    """Apply the patterns to a fixpoint. Raises VerifyError where they never come to rest."""
    rewriter = Rewriter(graph)
    for _ in range(100 + len(graph.nodes)):
        before = rewriter._changes
        rewriter._sweep(patterns)
        if rewriter._changes == before:
            return rewriter._seal()
    raise VerifyError(f"graph {graph.name!r}: the rewrite does not come to rest; a pattern matches its own result")
