"""Time one op on the CPU target, against what the machine can do in the same minute."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from oi.codegen.cpu.build import build_library, support_files
from oi.codegen.cpu.simd import Kernel, Register, Simd, T, declare, horizontal_sum, load, splat, store
from oi.codegen.cpu.target import CpuTarget, simd_of
from oi.ir import ops
from oi.ir.builder import Builder
from oi.ir.op import Op
from oi.ir.types import DType, Sym, TensorType
from oi.runtime.device.tvm_ffi_abi import KernelLibrary, TVMFFIAny, int_argument, make_tensor, tensor_argument

__all__ = [
    "TARGET",
    "THREADS",
    "Array",
    "Operand",
    "best",
    "f32",
    "fma_peak",
    "i32",
    "launch",
    "read_bandwidth",
    "weight",
]

THREADS = len(os.sched_getaffinity(0))
os.environ.setdefault("TVM_NUM_THREADS", str(THREADS))
TARGET = CpuTarget()
Array = np.ndarray[Any, np.dtype[Any]]
_NUMPY = {DType.F32: np.float32, DType.BF16: np.uint16, DType.I32: np.int32}
_UPDATED: dict[type[Op], set[int]] = {ops.KvWrite: {0}, ops.QkvNormRopeWrite: {1}}
"""Results that are an operand, updated in place."""


@dataclass(frozen=True)
class Operand:
    type: TensorType
    array: Array


def f32(array: Array, *dims: Sym) -> Operand:
    """`dims` name the symbolic dims, from the first on."""
    return Operand(TensorType(DType.F32, (*dims, *array.shape[len(dims) :])), aligned(np.asarray(array, np.float32)))


def i32(array: Array, *dims: Sym) -> Operand:
    return Operand(TensorType(DType.I32, (*dims, *array.shape[len(dims) :])), aligned(np.asarray(array, np.int32)))


def weight(rng: np.random.Generator, rows: int, columns: int) -> Operand:
    """Random bfloat16 bits of values between 2^-31 and 2^1."""
    bits = rng.integers(0, 2**16, (rows, columns), dtype=np.uint16) & 0xBFFF | 0x3000
    return Operand(TensorType(DType.BF16, (rows, columns)), bits)


def aligned(array: Array) -> Array:
    """A copy at an address that 64 divides, as the runtime allocates."""
    raw = np.zeros(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def launch(op: Op, *operands: Operand) -> Callable[[], None]:
    """The op as the runtime would call it, results allocated."""
    builder = Builder("one_op")
    values = [builder.input(f"operand{i}", operand.type) for i, operand in enumerate(operands)]
    types = op.result_types(*(operand.type for operand in operands))
    builder.emit_multi(op, *values, names=tuple(f"result{i}" for i in range(len(types))))
    (node,) = builder.build().nodes
    lowering = TARGET.lower(node)
    dims = {
        d: n
        for operand in operands
        for d, n in zip(operand.type.shape, operand.array.shape, strict=True)
        if isinstance(d, Sym)
    }
    arrays = [(o.type, o.array) for o in operands]
    for i, result in enumerate(types):
        if i not in _UPDATED.get(type(op), set()):
            shape = [dims[d] if isinstance(d, Sym) else d for d in result.shape]
            arrays.append((result, aligned(np.zeros(shape, _NUMPY[result.dtype]))))
    tensors = [make_tensor(a.ctypes.data, t.dtype.value, a.shape) for t, a in arrays]
    args = [*map(tensor_argument, tensors), *map(int_argument, lowering.scalars)]
    packed = (TVMFFIAny * len(args))(*args)
    rows = next(n for d, n in dims.items() if d.name == lowering.rows)
    variant = next(v for v in lowering.variants if v.max_rows is None or rows <= v.max_rows)
    assert isinstance(variant.source, Kernel)
    library = _library(variant.source)
    kernel = library.bind(variant.kernel)

    def call(keep: Any = (tensors, arrays)) -> None:
        library.call(kernel, packed)

    return call


_LIBRARIES: dict[str, KernelLibrary] = {}


def _library(kernel: Kernel) -> KernelLibrary:
    if kernel.name not in _LIBRARIES:
        with tempfile.TemporaryDirectory() as folder:
            built = build_library([kernel], TARGET.cpu.mcpu, Path(folder))
            _LIBRARIES[kernel.name] = KernelLibrary(Path(folder, built.path), support_files())
    return _LIBRARIES[kernel.name]


def best(function: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the quickest of some calls."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


# What the machine can do, by kernels of our own with all threads.

_PROBE_ITEMS, _PROBE_WORDS, _FMA_STEPS = 64, 1 << 19, 200_000


def read_bandwidth() -> float:
    """Bytes a second of reading 128 MiB once."""
    call, _ = _bandwidth_probe()
    return _PROBE_ITEMS * _PROBE_WORDS * 4 / best(call)


def fma_peak() -> float:
    """FLOP a second of multiply-adds that never leave the registers."""
    call, simd = _fma_probe()
    return THREADS * _FMA_STEPS * _accumulators(simd) * simd.lanes * 2 / best(call)


def _accumulators(simd: Simd) -> int:
    return simd.registers - 4


@cache
def _bandwidth_probe() -> tuple[Callable[[], None], Simd]:
    simd, unroll = simd_of(TARGET.cpu), 8

    def body() -> None:
        x, y = declare(x=(DType.I32, _PROBE_ITEMS, _PROBE_WORDS), y=(DType.I32, _PROBE_ITEMS))
        with T.parallel(_PROBE_ITEMS) as item:
            sums = [Register(splat(T.int32(0), simd.lanes)) for _ in range(unroll)]
            with T.serial(_PROBE_WORDS // simd.lanes // unroll) as i:
                for u, register in enumerate(sums):
                    register.add(load(x, item, (i * unroll + u) * simd.lanes, lanes=simd.lanes))
            total = sums[0].value
            for register in sums[1:]:
                total = total + register.value
            store(y, horizontal_sum(total), item)

    data = np.ones((_PROBE_ITEMS, _PROBE_WORDS), np.int32)
    return _call(Kernel("probe_bandwidth", body), [data, np.zeros(_PROBE_ITEMS, np.int32)]), simd


@cache
def _fma_probe() -> tuple[Callable[[], None], Simd]:
    simd = simd_of(TARGET.cpu)

    def body() -> None:
        x, y = declare(x=(DType.F32, 2 * simd.lanes), y=(DType.F32, THREADS))
        with T.parallel(THREADS) as item:
            factor, addend = load(x, 0, lanes=simd.lanes), load(x, simd.lanes, lanes=simd.lanes)
            sums = [Register(factor * splat(float(i), simd.lanes)) for i in range(_accumulators(simd))]
            with T.serial(_FMA_STEPS):
                for register in sums:
                    register.set(register.value * factor + addend)
            total = sums[0].value
            for register in sums[1:]:
                total = total + register.value
            store(y, horizontal_sum(total), item)

    data = np.linspace(0.1, 0.9, 2 * simd.lanes, dtype=np.float32)
    return _call(Kernel("probe_fma", body), [data, np.zeros(THREADS, np.float32)]), simd


def _call(kernel: Kernel, arrays: Sequence[Array]) -> Callable[[], None]:
    names = {np.dtype(np.float32): "f32", np.dtype(np.int32): "i32"}
    tensors = [make_tensor(a.ctypes.data, names[a.dtype], a.shape) for a in arrays]
    packed = (TVMFFIAny * len(tensors))(*map(tensor_argument, tensors))
    library = _library(kernel)
    bound = library.bind(kernel.name)

    def call(keep: Any = (tensors, arrays)) -> None:
        library.call(bound, packed)

    return call
