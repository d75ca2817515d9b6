"""The verifier finds each kind of broken graph."""

import pytest

from oi.ir import ops
from oi.ir.errors import IRError, TypeMismatch, VerifyError
from oi.ir.graph import Graph, InputKind, Node, Value
from oi.ir.parser import parse_graph
from oi.ir.types import DType, T, TensorType
from oi.ir.verify import verify

WRITE = """
graph @write(
  input %k: f32[T,2,8], input %slots: i32[T], input %q: f32[T,4,8],
  input %starts: i32[S], input %lens: i32[S], input %contexts: i32[S], input %pages: i32[S,P],
  state %kv: f32[N,2,2,2,16,8],
) {
  BODY
}
"""
KV = "f32[N,2,2,2,16,8]"


def write(*body: str) -> Graph:
    return parse_graph(WRITE.replace("BODY", "\n".join(body)))


def kv_write(result: str, operand: str, layer: int = 0) -> str:
    return f"%{result} = kv_write(%k, %k, %slots, %{operand}) {{layer={layer}}} : {KV}"


def attend(result: str, kv: str) -> str:
    operands = f"%q, %{kv}, %starts, %lens, %contexts, %pages"
    return f"%{result} = attention({operands}) {{layer=0, scale=1.0}} : f32[T,4,8]"


def test_accepts_a_chain_of_updates() -> None:
    verify(write(kv_write("a", "kv"), attend("y", "a"), kv_write("b", "a", 1), attend("z", "b"), "return %y, %z, %b"))


@pytest.mark.parametrize(
    "body",
    [
        [kv_write("a", "kv"), attend("y", "kv"), "return %y, %a"],
        [kv_write("a", "kv"), kv_write("b", "kv", 1), "return %b"],
        [kv_write("a", "kv"), kv_write("b", "a"), attend("y", "a"), "return %y, %b"],
        [kv_write("a", "kv"), kv_write("b", "a"), "return %a"],
        [kv_write("a", "kv"), "return %kv"],
    ],
    ids=["read-after-write", "two-writers", "read-of-a-middle-version", "stale-output", "stale-input-as-output"],
)
def test_refuses_to_read_overwritten_state(body: list[str]) -> None:
    with pytest.raises(VerifyError, match="overwrote"):
        verify(write(*body))


X, NINE = TensorType(DType.F32, (T, 8)), TensorType(DType.F32, (T, 9))
x, y, z = (Value(name, X) for name in "xyz")


@pytest.mark.parametrize(
    ("graph", "error", "says"),
    [
        (Graph("g", {}, (Node(ops.Silu(), (x,), (y,)),), (y,)), VerifyError, "reads %x"),
        (
            Graph("g", {x: InputKind.INPUT}, (Node(ops.Silu(), (y,), (z,)), Node(ops.Silu(), (x,), (y,))), (z,)),
            VerifyError,
            "reads %y",
        ),
        (Graph("g", {x: InputKind.INPUT}, (), (y,)), VerifyError, "return reads %y"),
        (
            Graph("g", {x: InputKind.INPUT}, (Node(ops.Silu(), (x,), (Value("x", X),)),), (x,)),
            VerifyError,
            "%x is defined twice",
        ),
        (Graph("g", {x: InputKind.INPUT}, (Node(ops.Silu(), (x,), (x,)),), (x,)), VerifyError, "%x is defined twice"),
        (Graph("g", {Value("a b", X): InputKind.INPUT}, (), ()), VerifyError, "letters"),
        (Graph("a b", {}, (), ()), VerifyError, "letters"),
        (
            Graph("g", {x: InputKind.INPUT}, (Node(ops.Silu(), (x,), (Value("y", NINE),)),), ()),
            VerifyError,
            r"must be \(f32\[T,8\]\), found \(f32\[T,9\]\)",
        ),
        (Graph("g", {x: InputKind.INPUT}, (Node(ops.Silu(), (x,), (y, z)),), ()), VerifyError, "must be"),
        (Graph("g", {x: InputKind.INPUT}, (Node(ops.Add(), (x,), (y,)),), ()), TypeMismatch, "1 operands"),
    ],
    ids=[
        "undefined operand",
        "use before definition",
        "undefined output",
        "name clash",
        "value defined twice",
        "bad value name",
        "bad graph name",
        "stale result type",
        "extra result",
        "missing operand",
    ],
)
def test_refuses(graph: Graph, error: type[IRError], says: str) -> None:
    with pytest.raises(error, match=says):
        verify(graph)
