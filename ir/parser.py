"""Read the text form that `printer.py` writes; `#` starts a comment.

    module    = graph*
    graph     = "graph" @name "(" (kind %name ":" type ",")* ")" "{" node* "return" values "}"
    node      = values "=" op "(" values ")" ["{" attribute, … "}"] ":" type, …
    type      = dtype "[" dim, … "]"                       dim = number | one of T S R P N E
    attribute = name "=" value                             value = number | dtype | "(" value, … ")"

The parser knows names and ops; whether types fit is `verify`'s affair.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import oi.ir.ops  # noqa: F401  (registers the ops)
from oi.ir.errors import ParseError
from oi.ir.graph import Graph, InputKind, Module, Node, Value
from oi.ir.op import OPS, Op
from oi.ir.types import SYMBOLS, Dim, DType, TensorType

__all__ = ["parse_graph", "parse_module"]

_Item = TypeVar("_Item")

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
      | (?P<value>%[\w.]+)
      | (?P<graph>@[\w.]+)
      | (?P<float>-?(?:\d+\.\d*(?:e[+-]?\d+)?|\d+e[+-]?\d+|inf\b|nan\b))
      | (?P<int>-?\d+)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<mark>[(){}\[\]=:,])""",
    re.ASCII | re.VERBOSE,
)
_DTYPES = {dtype.value: dtype for dtype in DType}
_KINDS = {kind.value: kind for kind in InputKind}


def parse_module(text: str) -> Module:
    """Raises ParseError with line and column."""
    parser = _Parser(text)
    graphs: dict[str, Graph] = {}
    while parser.token.kind != "end":
        at = parser.token
        graph = parser.graph()
        if graph.name in graphs:
            raise parser.error(f"graph @{graph.name} is defined twice", at)
        graphs[graph.name] = graph
    return Module(graphs)


def parse_graph(text: str) -> Graph:
    """The one graph of a text. Raises ParseError with line and column."""
    parser = _Parser(text)
    graph = parser.graph()
    if parser.token.kind != "end":
        raise parser.error(f"expected the end, found {parser.token.text!r}")
    return graph


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    offset: int


class _Parser:
    """Recursive descent; `token` is the next one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        self._values: dict[str, Value] = {}
        self.token = self._scan()

    def error(self, message: str, at: _Token | None = None) -> ParseError:
        before = self._text[: (at or self.token).offset]
        return ParseError(message, before.count("\n") + 1, len(before) - before.rfind("\n"))

    def graph(self) -> Graph:
        self._expect("graph")
        name = self._take("graph", "a graph's name (@name)").text[1:]
        self._values = {}
        inputs: dict[Value, InputKind] = {}
        self._expect("(")
        while not self._accept(")"):
            kind = _KINDS.get(self.token.text)
            if kind is None:
                raise self.error(f"expected one of {', '.join(_KINDS)} or ')', found {self.token.text!r}")
            self._next()
            inputs[self._define(self._value_token(), self._typed())] = kind
            if self.token.text != ")":
                self._expect(",")
        self._expect("{")
        nodes: list[Node] = []
        while not self._accept("return"):
            nodes.append(self._node())
        outputs = self._operands(until="}")
        return Graph(name, inputs, tuple(nodes), outputs)

    def _node(self) -> Node:
        names = self._list(self._value_token)
        self._expect("=")
        at = self._take("word", "an op's name")
        if at.text not in OPS:
            raise self.error(f"there is no op {at.text!r}", at)
        self._expect("(")
        operands = self._operands(until=")")
        op = self._op(OPS[at.text], at)
        self._expect(":")
        types = self._list(self._type)
        if len(names) != len(types):
            raise self.error(f"{len(names)} results but {len(types)} types", at)
        return Node(op, operands, tuple(map(self._define, names, types)))

    def _op(self, cls: type[Op], at: _Token) -> Op:
        attributes: dict[str, object] = {}
        known = [field.name for field in fields(cls)]
        if self._accept("{"):
            while not self._accept("}"):
                name = self._take("word", "an attribute's name")
                if name.text not in known or name.text in attributes:
                    raise self.error(f"{cls.name} has no attribute {name.text!r}, or has it already", name)
                self._expect("=")
                attributes[name.text] = self._attribute()
                if self.token.text != "}":
                    self._expect(",")
        missing = [name for name in known if name not in attributes]
        if missing:
            raise self.error(f"{cls.name} lacks {', '.join(missing)}", at)
        return cls(**attributes)

    def _attribute(self) -> object:
        token = self._next()
        match token.kind:
            case "int":
                return int(token.text)
            case "float":
                return float(token.text)
            case "word" if token.text in _DTYPES:
                return _DTYPES[token.text]
            case "mark" if token.text == "(":
                items: list[object] = []
                while not self._accept(")"):
                    items.append(self._attribute())
                    if self.token.text != ")":
                        self._expect(",")
                return tuple(items)
        raise self.error(f"expected a number, a dtype or a tuple, found {token.text!r}", token)

    def _operands(self, until: str) -> tuple[Value, ...]:
        values = () if self.token.text == until else tuple(self._list(self._use))
        self._expect(until)
        return values

    def _list(self, item: Callable[[], _Item]) -> list[_Item]:
        items = [item()]
        while self._accept(","):
            items.append(item())
        return items

    def _use(self) -> Value:
        token = self._value_token()
        if token.text not in self._values:
            raise self.error(f"{token.text} is not defined", token)
        return self._values[token.text]

    def _define(self, token: _Token, type: TensorType) -> Value:
        if token.text in self._values:
            raise self.error(f"{token.text} is defined twice", token)
        self._values[token.text] = value = Value(token.text[1:], type)
        return value

    def _value_token(self) -> _Token:
        return self._take("value", "a value (%name)")

    def _typed(self) -> TensorType:
        self._expect(":")
        return self._type()

    def _type(self) -> TensorType:
        token = self._take("word", "a dtype")
        if token.text not in _DTYPES:
            raise self.error(f"there is no dtype {token.text!r}, only {', '.join(_DTYPES)}", token)
        self._expect("[")
        shape = () if self.token.text == "]" else tuple(self._list(self._dim))
        self._expect("]")
        return TensorType(_DTYPES[token.text], shape)

    def _dim(self) -> Dim:
        token = self._next()
        if token.kind == "int" and not token.text.startswith("-"):
            return int(token.text)
        if token.text in SYMBOLS:
            return SYMBOLS[token.text]
        raise self.error(f"a dimension is a number or one of {' '.join(SYMBOLS)}, found {token.text!r}", token)

    def _take(self, kind: str, what: str) -> _Token:
        if self.token.kind != kind:
            raise self.error(f"expected {what}, found {self.token.text or 'the end'!r}")
        return self._next()

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self.error(f"expected {text!r}, found {self.token.text or 'the end'!r}")

    def _accept(self, text: str) -> bool:
        if self.token.text != text:
            return False
        self._next()
        return True

    def _next(self) -> _Token:
        token, self.token = self.token, self._scan()
        return token

    def _scan(self) -> _Token:
        while self._end < len(self._text):
            start, match = self._end, _TOKEN.match(self._text, self._end)
            if match is None:
                at = _Token("unknown", self._text[start], start)
                raise self.error(f"unexpected {at.text!r}", at)
            self._end = match.end()
            if match.lastgroup != "space":
                return _Token(str(match.lastgroup), match.group(), start)
        return _Token("end", "", self._end)
