"""What an op is: a frozen record of attributes with a name, an equation and a shape rule.

Nothing happens in a constructor. Operands are not part of the op; a `Node` binds them (see graph.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from oi.ir.errors import TypeMismatch
from oi.ir.types import Dim, DType, TensorType

__all__ = ["OPS", "Op", "expect_dtype", "expect_rank", "expect_same", "expect_shape", "infer_types", "register"]

_OpT = TypeVar("_OpT", bound="type[Op]")

OPS: dict[str, type[Op]] = {}
"""Every op by its name in the text form."""


@dataclass(frozen=True)
class Op:
    """Base of all ops. Subclasses are frozen dataclasses whose fields are the attributes."""

    name: ClassVar[str]
    """Name in the text form."""
    operands: ClassVar[tuple[str, ...]]
    """Operand names in order; a last name ending in `*` takes one or more."""
    equation: ClassVar[str]
    """What the op computes, in the notation of types.py's legend."""

    def result_types(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The shape rule. Raises TypeMismatch where the operands do not fit; their number is the caller's affair."""
        raise NotImplementedError


def infer_types(op: Op, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
    """The op's result types. Raises TypeMismatch where the operands' number or types do not fit."""
    variadic = op.operands[-1:] != () and op.operands[-1].endswith("*")
    if len(operands) < len(op.operands) or (len(operands) > len(op.operands) and not variadic):
        raise TypeMismatch(f"{op.name}: takes ({', '.join(op.operands)}), found {len(operands)} operands")
    return op.result_types(*operands)


def register(cls: _OpT) -> _OpT:
    """Class decorator: make the op known to the parser, verifier and interpreter."""
    if cls.name in OPS:
        raise ValueError(f"op {cls.name!r} is declared twice")
    OPS[cls.name] = cls
    return cls


def expect_rank(what: str, t: TensorType, rank: int) -> None:
    if t.rank != rank:
        raise TypeMismatch(f"{what} must have rank {rank}, found {t}")


def expect_dtype(what: str, t: TensorType, *dtypes: DType) -> None:
    if t.dtype not in dtypes:
        raise TypeMismatch(f"{what} must be {' or '.join(d.value for d in dtypes)}, found {t}")


def expect_same(what: str, found: Dim, expected: Dim) -> None:
    if found != expected:
        raise TypeMismatch(f"{what} must be {expected}, found {found}")


def expect_shape(what: str, t: TensorType, dtype: DType, *shape: Dim) -> None:
    """The operand has exactly this dtype and shape."""
    expected = TensorType(dtype, shape)
    if t != expected:
        raise TypeMismatch(f"{what} must be {expected}, found {t}")
