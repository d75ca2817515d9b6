"""Dtypes, symbolic dimensions and tensor types.

Legend of the symbolic dimensions, used as shape suffixes throughout the project:

    T  tokens of one step, all sequences flattened         S  sequences of one step
    R  rows of a step that are sampled                     P  pages a page table row can hold
    N  pages of the KV pool                                E  logit edits of one step, all rows flattened

Static dimensions are plain ints: H hidden, V vocabulary, I intermediate, Q query heads, K key/value heads,
D head dim, L layers, B tokens a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["SYMBOLS", "DType", "Dim", "E", "N", "P", "R", "S", "Sym", "T", "TensorType"]


class DType(Enum):
    """Element type. `value` is the name in the text form and in the artifact."""

    F32 = "f32"
    BF16 = "bf16"
    I32 = "i32"

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 2 if self is DType.BF16 else 4

    @property
    def is_float(self) -> bool:
        return self is not DType.I32

    def __repr__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Sym:
    """A dimension known only when a step runs."""

    name: str

    def __repr__(self) -> str:
        return self.name


Dim = int | Sym

SYMBOLS = {name: Sym(name) for name in "TSRPNE"}
T, S, R, P, N, E = SYMBOLS.values()


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dense, row-major tensor: `f32[T,1024]` in the text form."""

    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.value}[{','.join(map(str, self.shape))}]"
