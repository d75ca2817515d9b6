"""The CPU: kernels of an exported TVM library, called in order with tensors bound once.

A buffer's address never changes. Between steps only the sizes of symbolic dims do, so a launch is one C call
whose arguments were made when the artifact was loaded.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oi.runtime.artifact import Artifact
from oi.runtime.checkpoint import Checkpoint
from oi.runtime.device.base import NUMPY_DTYPE, io_shape
from oi.runtime.device.tvm_ffi_abi import (
    DLTensor,
    Kernel,
    KernelLibrary,
    TVMFFIAny,
    int_argument,
    make_tensor,
    tensor_argument,
)
from oi.runtime.errors import ArtifactError, CheckpointError, DeviceError
from oi.runtime.manifest import Buffer, Launch, Program

__all__ = ["CpuDevice"]

_ALIGNMENT = 64


@dataclass(frozen=True)
class _BoundLaunch:
    rows: str
    variants: tuple[tuple[float, Kernel], ...]
    """Largest row count and kernel; the last one's is infinite."""
    args: ctypes.Array[TVMFFIAny]

    def kernel_for(self, rows: int) -> Kernel:
        return next(kernel for limit, kernel in self.variants if rows <= limit)


@dataclass(frozen=True)
class _BoundProgram:
    launches: tuple[_BoundLaunch, ...]
    symbolic: tuple[tuple[Any, int, str], ...]
    """(shape array, index, dim): what to rewrite when the dims change."""


class CpuDevice:
    """See base.Device. All kernels run on the thread that makes the device; it is not to be shared."""

    def __init__(
        self, artifact: Artifact, checkpoint: Checkpoint, capacity: Mapping[str, int], threads: int | None = None
    ) -> None:
        """Map the weights, allocate the rest. `capacity` gives the largest size of each symbolic dim.

        Memory that is allocated but never touched costs nothing: the system backs a page when it is first written.
        Raises ArtifactError, CheckpointError, DeviceError.
        """
        manifest = artifact.manifest
        os.environ["TVM_NUM_THREADS"] = str(threads or len(os.sched_getaffinity(0)))
        os.environ["TVM_BIND_THREADS"] = "0"  # it would pin them to the first cores, whichever we may use
        self._library = KernelLibrary(
            artifact.path(manifest.library), [artifact.path(name) for name in manifest.support]
        )
        self._capacity = capacity
        self._tensors = {name: checkpoint.tensor(tensor) for name, tensor in manifest.weights.items()}
        self._constants = _aligned(0) if manifest.constants is None else _load(artifact, manifest.constants)
        self._arena = _aligned(manifest.arena_bytes)
        self._named: dict[str, NDArray[Any]] = {}
        self._io: dict[str, Buffer] = {}
        self._keep: list[DLTensor] = []
        self._programs = {name: self._bind(program) for name, program in manifest.programs.items()}
        self._bound_dims: dict[str, dict[str, int]] = {}

    def write(self, name: str, array: NDArray[Any]) -> None:
        memory = self._named[name]
        if array.size > memory.size or array.dtype != memory.dtype:
            raise DeviceError(f"io buffer {name!r} holds {memory.size} {memory.dtype}, not {array.size} {array.dtype}")
        memory[: array.size] = array.reshape(-1)

    def run(self, program: str, dims: Mapping[str, int]) -> None:
        bound = self._programs[program]
        if self._bound_dims.get(program) != dims:
            self._check_capacity(dims)
            for shape, index, dim in bound.symbolic:
                shape[index] = dims[dim]
            self._bound_dims[program] = dict(dims)
        call = self._library.call
        for launch in bound.launches:
            if rows := dims[launch.rows]:
                call(launch.kernel_for(rows), launch.args)

    def read(self, name: str, dims: Mapping[str, int]) -> NDArray[Any]:
        shape = io_shape(self._io[name].shape, dims)
        return self._named[name][: int(np.prod(shape))].reshape(shape)

    def state(self, name: str) -> NDArray[Any]:
        """All of what the programs keep from one run to the next under this name, flat."""
        return self._named[name]

    def _check_capacity(self, dims: Mapping[str, int]) -> None:
        for dim, size in dims.items():
            if size > self._capacity[dim]:
                raise DeviceError(f"{size} is over the {self._capacity[dim]} that {dim} was planned for")

    def _bind(self, program: Program) -> _BoundProgram:
        symbolic: list[tuple[Any, int, str]] = []
        arguments: dict[str, TVMFFIAny] = {}
        for name, buffer in program.buffers.items():
            largest = io_shape(buffer.shape, self._capacity)
            tensor = make_tensor(self._address(name, buffer, largest), buffer.dtype, largest)
            self._keep.append(tensor)
            arguments[name] = tensor_argument(tensor)
            symbolic += [(tensor.shape, i, d) for i, d in enumerate(buffer.shape) if isinstance(d, str)]
        launches = tuple(self._bind_launch(launch, arguments) for launch in program.launches)
        return _BoundProgram(launches, tuple(symbolic))

    def _bind_launch(self, launch: Launch, arguments: Mapping[str, TVMFFIAny]) -> _BoundLaunch:
        variants = tuple(
            (float("inf") if v.max_rows is None else v.max_rows, self._library.bind(v.kernel)) for v in launch.variants
        )
        args = [int_argument(a) if isinstance(a, int) else arguments[a] for a in launch.args]
        return _BoundLaunch(launch.rows, variants, (TVMFFIAny * len(args))(*args))

    def _address(self, name: str, buffer: Buffer, largest: tuple[int, ...]) -> int:
        match buffer.kind:
            case "weight":
                return self._weight_address(name, buffer)
            case "constant":
                return int(self._constants.ctypes.data) + buffer.offset
            case "arena":
                return int(self._arena.ctypes.data) + buffer.offset
            case "io" | "state":
                if name not in self._named:
                    size = int(np.prod(largest)) * np.dtype(NUMPY_DTYPE[buffer.dtype]).itemsize
                    self._named[name] = _aligned(size).view(NUMPY_DTYPE[buffer.dtype])
                    self._io[name] = buffer
                return int(self._named[name].ctypes.data)

    def _weight_address(self, name: str, buffer: Buffer) -> int:
        tensor = self._tensors[name]
        if tensor.dtype != buffer.dtype or list(tensor.shape) != buffer.shape:
            raise CheckpointError(
                f"weight {name!r} is {tensor.dtype}{list(tensor.shape)} in the checkpoint, "
                f"{buffer.dtype}{buffer.shape} in the artifact; is it the model that was compiled?"
            )
        return tensor.address


def _aligned(size: int) -> NDArray[np.uint8]:
    """Zeroed memory at an aligned address, untouched until written."""
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size]


def _load(artifact: Artifact, file: str) -> NDArray[np.uint8]:
    content = np.fromfile(artifact.path(file), np.uint8)
    if not content.size:
        raise ArtifactError(f"{artifact.path(file)} is empty")
    memory = _aligned(content.size)
    memory[:] = content
    return memory
