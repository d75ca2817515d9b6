"""Scratch memory of an op's kernels: what a launch asks for becomes named buffers, which all launches share."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal

from oi.codegen.cuda.source import Argument
from oi.runtime.cuda_library import Scratch

__all__ = ["Array", "scratch_arguments", "scratch_bytes"]

Array = tuple[Literal["f32", "i32", "i64"], tuple[int, ...]]
"""Dtype and shape of a scratch buffer."""

_TYPES = {"f32": ("*fp32", 4), "i32": ("*i32", 4), "i64": ("*i64", 8)}


def scratch_arguments(op: str, arrays: Mapping[str, Array]) -> dict[str, Argument]:
    """By the kernels' names: `NAME_ptr` is the buffer `OP.NAME`."""
    return {f"{name}_ptr": Argument(_TYPES[dtype][0], Scratch(f"{op}.{name}")) for name, (dtype, _) in arrays.items()}


def scratch_bytes(op: str, arrays: Mapping[str, Array]) -> tuple[tuple[str, int], ...]:
    """Buffers and what they must hold (NodeSource.scratch)."""
    return tuple((f"{op}.{name}", _TYPES[dtype][1] * prod(shape)) for name, (dtype, shape) in arrays.items())
