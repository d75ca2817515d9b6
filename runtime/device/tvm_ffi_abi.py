"""Call kernels of an exported TVM library through ctypes: the C structures, loading, binding and errors.

A kernel is `int __tvm_ffi_<name>(void *self, TVMFFIAny *args, int32 n, TVMFFIAny *result)`; tensors go in as
`DLTensor *`. Nothing of TVM's Python packages is needed, only the two libraries in `Manifest.support`.

The thread pool belongs to the thread that calls: call all kernels from one thread. `TVM_NUM_THREADS` must be in
the environment before the first parallel kernel runs, or the pool takes half of the machine's processors.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from oi.runtime.errors import DeviceError

__all__ = ["DLTensor", "KernelLibrary", "TVMFFIAny", "int_argument", "make_tensor", "tensor_argument"]

_CPU = 1
_DTYPES = {"f32": (2, 32), "bf16": (4, 16), "i32": (0, 32)}
_TYPE_INT, _TYPE_DLTENSOR = 1, 7
_CONTEXT_SYMBOLS = (
    "TVMBackendParallelLaunch",
    "TVMBackendParallelBarrier",
    "TVMBackendAllocWorkspace",
    "TVMBackendFreeWorkspace",
)


class DLDevice(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    """A dense tensor. `shape` may be rewritten between calls; `strides` is null: row-major."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Value(ctypes.Union):
    _fields_ = (("v_int64", ctypes.c_int64), ("v_ptr", ctypes.c_void_p))


class TVMFFIAny(ctypes.Structure):
    """One argument or result: a type index and eight bytes of value."""

    _anonymous_ = ("value",)
    _fields_ = (("type_index", ctypes.c_int32), ("zero_padding", ctypes.c_uint32), ("value", _Value))


class _ByteArray(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Error(ctypes.Structure):
    _fields_ = (("header", ctypes.c_uint8 * 24), ("kind", _ByteArray), ("message", _ByteArray))


Kernel = Callable[[None, "ctypes.Array[TVMFFIAny]", int, TVMFFIAny], int]
"""A bound function: `kernel(None, args, len(args), byref(result))`, 0 on success."""


def make_tensor(address: int, dtype: str, shape: Sequence[int]) -> DLTensor:
    """Describe memory at `address`, which the caller keeps alive. `dtype` is f32, bf16 or i32."""
    code, bits = _DTYPES[dtype]
    dims = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    return DLTensor(address, DLDevice(_CPU, 0), len(shape), DLDataType(code, bits, 1), dims, None, 0)


def tensor_argument(tensor: DLTensor) -> TVMFFIAny:
    """The caller keeps `tensor` alive as long as the argument is used."""
    return TVMFFIAny(_TYPE_DLTENSOR, 0, _Value(v_ptr=ctypes.addressof(tensor)))


def int_argument(value: int) -> TVMFFIAny:
    return TVMFFIAny(_TYPE_INT, 0, _Value(v_int64=value))


def _load_once(path: Path) -> ctypes.CDLL:
    """A process may hold one copy of TVM's libraries: take the loaded one where there is one (in tests)."""
    try:
        return ctypes.CDLL(path.name, ctypes.RTLD_GLOBAL | os.RTLD_NOLOAD)
    except OSError:
        return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


class KernelLibrary:
    """An exported library and the TVM runtime under it. Raises DeviceError where one cannot be loaded."""

    def __init__(self, path: Path, support: Sequence[Path]) -> None:
        """Load `support` in order (libtvm_ffi, then libtvm_runtime), then the kernels at `path`."""
        try:
            self._support = [_load_once(p) for p in support]
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise DeviceError(
                f"cannot load the kernels: {error}; compile the artifact again with oi-compile"
            ) from error
        for name in _CONTEXT_SYMBOLS:
            self._fill_context(name)

    def bind(self, name: str) -> Kernel:
        """The kernel called `name`. Raises DeviceError where the library has none."""
        try:
            function = getattr(self._library, f"__tvm_ffi_{name}")
        except AttributeError:
            raise DeviceError(
                f"the library has no kernel {name!r}; compile the artifact again with oi-compile"
            ) from None
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p)
        function.restype = ctypes.c_int32
        return function  # type: ignore[no-any-return]

    def call(self, kernel: Kernel, args: ctypes.Array[TVMFFIAny]) -> None:
        """Run a kernel to its end. Raises DeviceError with the kernel's own message where it refuses."""
        result = TVMFFIAny()
        if kernel(None, args, len(args), ctypes.byref(result)):  # type: ignore[arg-type]
            raise DeviceError(self._take_error())

    def _fill_context(self, name: str) -> None:
        """A library calls the runtime through pointers of its own, which whoever loads it fills in."""
        try:
            slot = ctypes.c_void_p.in_dll(self._library, f"__{name}")
        except ValueError:
            return  # no kernel uses this function
        for library in reversed(self._support):
            if hasattr(library, name):
                slot.value = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
                return
        raise DeviceError(f"the TVM runtime has no {name}; compile the artifact again with oi-compile")

    def _take_error(self) -> str:
        ffi = self._support[0]
        handle = ctypes.c_void_p()
        ffi.TVMFFIErrorMoveFromRaised(ctypes.byref(handle))
        if not handle.value:
            return "a kernel failed without a message"
        error = _Error.from_address(handle.value)
        kind, message = (ctypes.string_at(part.data, part.size).decode() for part in (error.kind, error.message))
        ffi.TVMFFIObjectDecRef(handle)
        return f"{kind}: {message}"
