"""Every op accepts what it should, says what it gives, and refuses the rest."""

import pytest

from oi.ir import ops
from oi.ir.errors import TypeMismatch
from oi.ir.op import OPS, Op, infer_types
from oi.ir.parser import parse_graph
from oi.ir.types import DType, TensorType

KV = "f32[N,3,2,2,16,8]"
SEQUENCES = ["i32[S]", "i32[S]", "i32[S]", "i32[S,P]"]
SAMPLE = [
    "f32[R,50]",
    "i32[R]",
    "i32[R]",
    "i32[E]",
    "f32[E]",
    "f32[E]",
    "f32[R]",
    "i32[R]",
    "f32[R]",
    "f32[R]",
    "f32[R]",
]

GOOD: list[tuple[Op, list[str], list[str]]] = [
    (ops.Constant((1.0, 0.5)), [], ["f32[2]"]),
    (ops.Add(), ["bf16[T,8]", "bf16[T,8]"], ["bf16[T,8]"]),
    (ops.Mul(), ["f32[T,8]", "f32[T,8]"], ["f32[T,8]"]),
    (ops.Silu(), ["f32[T,8]"], ["f32[T,8]"]),
    (ops.Reshape((4, 2)), ["f32[T,8]"], ["f32[T,4,2]"]),
    (ops.Reshape((8,)), ["f32[T,4,2]"], ["f32[T,8]"]),
    (ops.SliceColumns(2, 6), ["f32[T,8]"], ["f32[T,6]"]),
    (ops.SelectRows(), ["f32[T,8]", "i32[R]"], ["f32[R,8]"]),
    (ops.Embedding(DType.F32), ["i32[T]", "bf16[50,8]"], ["f32[T,8]"]),
    (ops.Linear(DType.F32), ["bf16[T,8]", "bf16[50,8]"], ["f32[T,50]"]),
    (ops.LinearConcat(), ["f32[T,8]", "bf16[5,8]", "bf16[3,8]"], ["f32[T,8]"]),
    (ops.SwigluLinear(), ["f32[T,8]", "bf16[5,8]", "bf16[5,8]"], ["f32[T,5]"]),
    (ops.RmsNorm(1e-6), ["f32[T,4,8]", "bf16[8]"], ["f32[T,4,8]"]),
    (ops.AddRmsNorm(1e-6), ["f32[T,8]", "f32[T,8]", "f32[8]"], ["f32[T,8]", "f32[T,8]"]),
    (ops.RopeAngles(1.0), ["i32[T]", "f32[4]"], ["f32[T,8]"]),
    (ops.Rope(), ["f32[T,4,8]", "f32[T,8]"], ["f32[T,4,8]"]),
    (ops.KvWrite(2), ["f32[T,2,8]", "f32[T,2,8]", "i32[T]", KV], [KV]),
    (ops.Attention(0, 1.0), ["f32[T,4,8]", KV, *SEQUENCES], ["f32[T,4,8]"]),
    (
        ops.QkvNormRopeWrite(4, 0, 1e-6),
        ["f32[T,64]", "f32[8]", "f32[8]", "f32[T,8]", "i32[T]", KV],
        ["f32[T,4,8]", KV],
    ),
    (
        ops.QkvAttention(4, 0, 1e-6, 1.0),
        ["f32[T,64]", "f32[8]", "f32[8]", "f32[T,8]", "i32[T]", KV, *SEQUENCES],
        ["f32[T,4,8]", KV],
    ),
    (ops.Greedy(), ["f32[R,50]"], ["i32[R]"]),
    (ops.Sample(), SAMPLE, ["i32[R]"]),
    (ops.LogProbs(20), ["f32[R,50]", "i32[R]"], ["f32[R]", "i32[R,20]", "f32[R,20]"]),
]

BAD: list[tuple[Op, list[str]]] = [
    (ops.Add(), ["f32[T,8]", "f32[T,9]"]),
    (ops.Mul(), ["f32[T,8]", "bf16[T,8]"]),
    (ops.Silu(), ["i32[T,8]"]),
    (ops.Reshape((4, 3)), ["f32[T,8]"]),
    (ops.Reshape((4,)), ["f32[T,S]"]),
    (ops.SliceColumns(3, 6), ["f32[T,8]"]),
    (ops.SliceColumns(-1, 2), ["f32[T,8]"]),
    (ops.SliceColumns(0, 0), ["f32[T,8]"]),
    (ops.SelectRows(), ["f32[T,4,2]", "i32[R]"]),
    (ops.SelectRows(), ["f32[T,8]", "f32[R]"]),
    (ops.Embedding(DType.F32), ["f32[T]", "f32[50,8]"]),
    (ops.Embedding(DType.F32), ["i32[T]", "f32[50]"]),
    (ops.Linear(DType.F32), ["f32[T,8]", "f32[50,9]"]),
    (ops.Linear(DType.F32), ["i32[T,8]", "f32[50,8]"]),
    (ops.Linear(DType.F32), ["f32[T,8]", "f32[N,8]"]),
    (ops.LinearConcat(), ["f32[T,8]", "f32[5,8]", "bf16[3,8]"]),
    (ops.LinearConcat(), ["f32[T,8]", "f32[5,8]", "f32[3,7]"]),
    (ops.SwigluLinear(), ["f32[T,8]", "f32[5,8]", "f32[6,8]"]),
    (ops.RmsNorm(1e-6), ["f32[T,8]", "f32[7]"]),
    (ops.RmsNorm(1e-6), ["f32[8]", "f32[8]"]),
    (ops.RmsNorm(1e-6), ["f32[T,8]", "i32[8]"]),
    (ops.AddRmsNorm(1e-6), ["f32[T,8]", "f32[R,8]", "f32[8]"]),
    (ops.RopeAngles(1.0), ["f32[T]", "f32[4]"]),
    (ops.RopeAngles(1.0), ["i32[T]", "f32[N]"]),
    (ops.Rope(), ["f32[T,4,8]", "f32[T,4]"]),
    (ops.Rope(), ["f32[T,32]", "f32[T,8]"]),
    (ops.KvWrite(3), ["f32[T,2,8]", "f32[T,2,8]", "i32[T]", KV]),
    (ops.KvWrite(0), ["f32[T,2,8]", "f32[T,4,8]", "i32[T]", KV]),
    (ops.KvWrite(0), ["f32[T,4,8]", "f32[T,4,8]", "i32[T]", KV]),
    (ops.KvWrite(0), ["f32[T,2,8]", "f32[T,2,8]", "i32[S]", KV]),
    (ops.KvWrite(0), ["f32[T,2,8]", "f32[T,2,8]", "i32[T]", "f32[N,3,1,2,16,8]"]),
    (ops.Attention(-1, 1.0), ["f32[T,4,8]", KV, *SEQUENCES]),
    (ops.Attention(0, 1.0), ["f32[T,3,8]", KV, *SEQUENCES]),
    (ops.Attention(0, 1.0), ["f32[T,4,16]", KV, *SEQUENCES]),
    (ops.Attention(0, 1.0), ["f32[T,4,8]", KV, *SEQUENCES[:3], "i32[R,P]"]),
    (ops.QkvNormRopeWrite(3, 0, 1e-6), ["f32[T,64]", "f32[8]", "f32[8]", "f32[T,8]", "i32[T]", KV]),
    (ops.QkvAttention(3, 0, 1e-6, 1.0), ["f32[T,64]", "f32[8]", "f32[8]", "f32[T,8]", "i32[T]", KV, *SEQUENCES]),
    (
        ops.QkvAttention(4, 0, 1e-6, 1.0),
        ["f32[T,64]", "f32[8]", "f32[8]", "f32[T,8]", "i32[T]", KV, *SEQUENCES[:3], "i32[R,P]"],
    ),
    (ops.Greedy(), ["bf16[R,50]"]),
    (ops.Sample(), [*SAMPLE[:-1], "f32[S]"]),
    (ops.Sample(), [*SAMPLE[:4], "f32[R]", *SAMPLE[5:]]),
    (ops.LogProbs(51), ["f32[R,50]", "i32[R]"]),
    (ops.LogProbs(20), ["f32[R,50]", "i32[S]"]),
]


def types(texts: list[str]) -> tuple[TensorType, ...]:
    inputs = ", ".join(f"input %x{i}: {text}" for i, text in enumerate(texts))
    return tuple(value.type for value in parse_graph(f"graph @g({inputs}) {{ return }}").inputs)


def test_every_op_has_a_good_case() -> None:
    assert {type(op) for op, _, _ in GOOD} == set(OPS.values())


@pytest.mark.parametrize(("op", "operands", "results"), GOOD)
def test_gives(op: Op, operands: list[str], results: list[str]) -> None:
    assert infer_types(op, types(operands)) == types(results)


@pytest.mark.parametrize(("op", "operands"), BAD)
def test_refuses(op: Op, operands: list[str]) -> None:
    with pytest.raises(TypeMismatch, match=op.name):
        infer_types(op, types(operands))


@pytest.mark.parametrize(("op", "operands"), [(op, operands) for op, operands, _ in GOOD])
def test_refuses_a_wrong_number_of_operands(op: Op, operands: list[str]) -> None:
    variadic = op.operands[-1:] == ("weights*",)
    with pytest.raises(TypeMismatch, match="operands"):
        infer_types(op, types(operands[:1] if variadic else [*operands, "f32[T,8]"]))
    if operands:
        with pytest.raises(TypeMismatch, match="operands"):
            infer_types(op, types(operands[: len(op.operands) - 1]))
