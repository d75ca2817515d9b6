"""The builder's names."""

import pytest

from oi.ir import ops
from oi.ir.builder import Builder
from oi.ir.errors import VerifyError
from oi.ir.types import DType, T, TensorType


def test_unnamed_results_get_names_of_their_own() -> None:
    b = Builder("g")
    x, w = b.input("x", TensorType(DType.F32, (T, 8))), b.weight("w", TensorType(DType.F32, (8,)))
    z, y = b.emit_multi(ops.AddRmsNorm(1e-6), x, x, w)
    assert len({x.name, w.name, z.name, y.name}) == 4


def test_a_name_is_taken_once() -> None:
    b = Builder("g")
    x = b.input("x", TensorType(DType.F32, (T, 8)))
    with pytest.raises(VerifyError, match="two values named %x"):
        b.emit(ops.Silu(), x, name="x")
