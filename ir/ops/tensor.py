"""Elementwise and data-movement ops."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from oi.ir.errors import TypeMismatch
from oi.ir.op import Op, expect_dtype, expect_rank, register
from oi.ir.types import DType, TensorType

__all__ = ["Add", "Constant", "Mul", "Reshape", "SelectRows", "Silu", "SliceColumns"]


@register
@dataclass(frozen=True)
class Constant(Op):
    """A small table that the model defines (RoPE's inverse frequencies). Shape [n], f32."""

    name = "constant"
    operands = ()
    equation = "y[i] = values[i]"
    values: tuple[float, ...]

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(DType.F32, (len(self.values),)),)


def _same_type(op: str, x: TensorType, y: TensorType) -> tuple[TensorType, ...]:
    if x != y:
        raise TypeMismatch(f"{op}: operands must have one type, found {x} and {y}")
    return (x,)


@register
@dataclass(frozen=True)
class Add(Op):
    name = "add"
    operands = ("x", "y")
    equation = "z = x + y"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return _same_type("add", *operands)


@register
@dataclass(frozen=True)
class Mul(Op):
    name = "mul"
    operands = ("x", "y")
    equation = "z = x ∘ y"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        return _same_type("mul", *operands)


@register
@dataclass(frozen=True)
class Silu(Op):
    name = "silu"
    operands = ("x",)
    equation = "y = x / (1 + exp(-x))"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands
        expect_dtype("silu: x", x, DType.F32, DType.BF16)
        return (x,)


@register
@dataclass(frozen=True)
class Reshape(Op):
    """Regroup the trailing static dimensions; the leading dimension stays. No data moves."""

    name = "reshape"
    operands = ("x",)
    equation = "y[t, ...] = x[t, ...], trailing dims regrouped in row-major order"
    trailing: tuple[int, ...]

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands
        old = [d for d in x.shape[1:] if isinstance(d, int)]
        if len(old) != x.rank - 1 or prod(old) != prod(self.trailing):
            raise TypeMismatch(f"reshape: {x} cannot become [{x.shape[0]},{','.join(map(str, self.trailing))}]")
        return (TensorType(x.dtype, (x.shape[0], *self.trailing)),)


@register
@dataclass(frozen=True)
class SliceColumns(Op):
    """Columns [start, start + size) of a matrix."""

    name = "slice_columns"
    operands = ("x",)
    equation = "y[t, j] = x[t, start + j]"
    start: int
    size: int

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands
        expect_rank("slice_columns: x", x, 2)
        width = x.shape[1]
        if not isinstance(width, int) or self.start < 0 or self.size < 1 or self.start + self.size > width:
            raise TypeMismatch(f"slice_columns: [{self.start}, {self.start + self.size}) is outside of {x}")
        return (TensorType(x.dtype, (x.shape[0], self.size)),)


@register
@dataclass(frozen=True)
class SelectRows(Op):
    """Gather rows of a matrix: the rows of a step that are sampled."""

    name = "select_rows"
    operands = ("x", "rows")
    equation = "y[r, :] = x[rows[r], :]"

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        x, rows = operands
        expect_rank("select_rows: x", x, 2)
        expect_rank("select_rows: rows", rows, 1)
        expect_dtype("select_rows: rows", rows, DType.I32)
        return (TensorType(x.dtype, (rows.shape[0], x.shape[1])),)
