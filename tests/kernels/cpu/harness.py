"""Run one op through the CPU target: lower it, build its kernels, call them as the runtime does.

Float operands and results lie at odd multiples of their item size, results are poisoned before the call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oi.codegen.cpu.build import build_library, support_files
from oi.codegen.cpu.simd import Kernel
from oi.codegen.cpu.target import CpuTarget
from oi.codegen.target import Lowering
from oi.ir import ops
from oi.ir.builder import Builder
from oi.ir.op import Op
from oi.ir.reference import REFERENCE
from oi.ir.types import DType, Sym, TensorType
from oi.runtime.device.tvm_ffi_abi import KernelLibrary, TVMFFIAny, int_argument, make_tensor, tensor_argument
from oi.runtime.host_cpu import HostCpu, cpu_features, describe, host_cpu

__all__ = ["TARGETS", "Array", "Operand", "bf16", "check", "f32", "i32", "reference", "run", "weight"]

Array = np.ndarray[Any, np.dtype[Any]]
_NUMPY = {DType.F32: np.float32, DType.BF16: np.uint16, DType.I32: np.int32}
_UPDATED: dict[type[Op], dict[int, int]] = {ops.KvWrite: {0: 3}, ops.QkvNormRopeWrite: {1: 5}}
"""Result index → index of the operand that is updated in place."""
os.environ.setdefault("TVM_NUM_THREADS", "2")
os.environ.setdefault("TVM_BIND_THREADS", "0")


def _level(name: str) -> HostCpu:
    """The host as if its CPU had no more than this level."""
    flags = cpu_features()
    if name == "x86-64-v3":
        flags = frozenset(f for f in flags if not f.startswith("avx512"))
    if name == "x86-64":
        flags = frozenset()
    return describe(host_cpu().arch, flags)


TARGETS = [
    pytest.param(CpuTarget(cpu), id=cpu.mcpu)
    for cpu in dict.fromkeys((host_cpu(), _level("x86-64-v3"), _level("x86-64")))
]
"""This machine, and the same with narrower vectors."""


@dataclass(frozen=True)
class Operand:
    """An array and its type; bfloat16 as its bits."""

    type: TensorType
    array: Array

    @property
    def exact(self) -> Array:
        """The values in float64 (ints as they are)."""
        if self.type.dtype is DType.BF16:
            return (self.array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return self.array.astype(np.float64) if self.type.dtype.is_float else self.array


def _operand(dtype: DType, array: Array, dims: Sequence[Sym | None]) -> Operand:
    padded = [*dims, *[None] * (array.ndim - len(dims))]
    return Operand(TensorType(dtype, tuple(d or n for d, n in zip(padded, array.shape, strict=True))), array)


def f32(array: Array, *dims: Sym | None) -> Operand:
    """`dims` name the symbolic dims, from the first on; None is a static one."""
    return _operand(DType.F32, np.asarray(array, np.float32), dims)


def i32(array: Array, *dims: Sym | None) -> Operand:
    return _operand(DType.I32, np.asarray(array, np.int32), dims)


def bf16(array: Array, *dims: Sym | None) -> Operand:
    """Cut to bfloat16, towards zero."""
    bits = (np.asarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return _operand(DType.BF16, bits, dims)


def weight(dtype: DType, array: Array) -> Operand:
    return bf16(array) if dtype is DType.BF16 else f32(array)


def reference(op: Op, *operands: Operand) -> tuple[Array, ...]:
    """The results in float64."""
    return REFERENCE[type(op)](op, *(operand.exact for operand in operands))


def check(target: CpuTarget, op: Op, *operands: Operand, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    """The kernel's results equal the reference's."""
    for found, expected in zip(run(target, op, *operands), reference(op, *operands), strict=True):
        np.testing.assert_allclose(found, expected, atol=atol, rtol=rtol)


def run(target: CpuTarget, op: Op, *operands: Operand) -> tuple[Array, ...]:
    """All results, an updated operand's among them."""
    builder = Builder("one_op")
    values = [builder.input(f"operand{i}", operand.type) for i, operand in enumerate(operands)]
    types = op.result_types(*(operand.type for operand in operands))
    builder.emit_multi(op, *values, names=tuple(f"result{i}" for i in range(len(types))))
    (node,) = builder.build().nodes
    lowering = target.lower(node)
    dims = _dims(operands)
    inputs = [_misaligned(operand.array) for operand in operands]
    aliases = _UPDATED.get(type(op), {})
    results = [
        inputs[aliases[i]] if i in aliases else _poisoned(result.type, dims) for i, result in enumerate(node.results)
    ]
    arrays = [*zip(node.operands, inputs, strict=True)]
    arrays += [(r, a) for i, (r, a) in enumerate(zip(node.results, results, strict=True)) if i not in aliases]
    tensors = [make_tensor(a.ctypes.data, v.type.dtype.value, a.shape) for v, a in arrays]
    args = [*map(tensor_argument, tensors), *map(int_argument, lowering.scalars)]
    library = _library(target, lowering)
    bound = next(v for v in lowering.variants if v.max_rows is None or dims[lowering.rows] <= v.max_rows)
    library.call(library.bind(bound.kernel), (TVMFFIAny * len(args))(*args))
    return tuple(results)


def _dims(operands: Sequence[Operand]) -> dict[str, int]:
    return {
        dim.name: size
        for operand in operands
        for dim, size in zip(operand.type.shape, operand.array.shape, strict=True)
        if isinstance(dim, Sym)
    }


def _misaligned(array: Array) -> Array:
    """A copy at an address that only its item size divides."""
    raw = np.zeros(array.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + array.itemsize
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _poisoned(type: TensorType, dims: dict[str, int]) -> Array:
    shape = tuple(dims[d.name] if isinstance(d, Sym) else d for d in type.shape)
    poison = np.nan if type.dtype.is_float else -(2**31) + 7
    return _misaligned(np.full(shape, poison, _NUMPY[type.dtype]))


_LIBRARIES: dict[tuple[str, ...], KernelLibrary] = {}


def _library(target: CpuTarget, lowering: Lowering) -> KernelLibrary:
    """The lowering's kernels, built once in a test run."""
    key = (target.cpu.mcpu, *(v.kernel for v in lowering.variants))
    if key not in _LIBRARIES:
        kernels = [v.source for v in lowering.variants if isinstance(v.source, Kernel)]
        with tempfile.TemporaryDirectory() as folder:
            built = build_library(kernels, target.cpu.mcpu, Path(folder))
            _LIBRARIES[key] = KernelLibrary(Path(folder, built.path), support_files())
    return _LIBRARIES[key]
