"""The CUDA driver through `cuda.bindings`: one GPU, every call checked, every failure an error that says the mend.

Addresses are plain ints. Versions 12.9 and 13.x of the bindings have the same signatures for all that is called here.
"""

from __future__ import annotations

import ctypes
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oi.runtime.errors import DeviceError

__all__ = ["Driver", "Pinned", "load_bindings"]

_OLDEST_DRIVER = 12030
"""Of 12.3, where a captured graph first keeps dependent launches."""

_MEND = {
    2: "the GPU's memory is full: end what else uses it (nvidia-smi), or lower --kv-cache-mib or --max-num-seqs",
    46: "the GPU is held by another process; see nvidia-smi",
    100: "no NVIDIA GPU is visible; see nvidia-smi and CUDA_VISIBLE_DEVICES",
    200: "the artifact's kernels do not load on this GPU; compile it again with oi-compile",
    209: "the artifact's kernels do not load on this GPU; compile it again with oi-compile",
    802: "the GPU's fabric is not up yet; start nvidia-fabricmanager",
    803: "the NVIDIA kernel module and libcuda are of different versions; reboot after a driver update",
    804: "the NVIDIA driver is too old for the installed CUDA compatibility package; update the driver",
    999: "the driver failed for a reason of its own; see dmesg",
}
_UPDATE = f"update the NVIDIA driver to one of CUDA {_OLDEST_DRIVER // 1000}.{_OLDEST_DRIVER % 1000 // 10} or later"


def load_bindings() -> Any:
    """The module `cuda.bindings.driver`. Raises DeviceError where it is not installed."""
    try:
        return import_module("cuda.bindings.driver")
    except ImportError as e:
        raise DeviceError(
            f"the GPU is driven through cuda-bindings, which is missing: pip install 'oi[cuda]', or serve on the "
            f"CPU with --target cpu ({e})"
        ) from e


class Pinned:
    """Page-locked host memory, which the GPU copies from and to by itself. Freed by `free` or never."""

    def __init__(self, driver: Driver, size: int) -> None:
        self._driver = driver
        self.address = int(driver.call("cuMemHostAlloc", size, 0))
        self.memory: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))

    def free(self) -> None:
        """Nothing may use `memory` after."""
        self._driver.call("cuMemFreeHost", self.address)


class Driver:
    """GPU 0 and its context, which is current on the thread that made this, and on those that call `use`."""

    def __init__(self, bindings: Any) -> None:
        """Wakes the GPU: some tenths of a second. Raises DeviceError."""
        self.api = bindings
        self.call("cuInit", 0)
        if self.call("cuDriverGetVersion") < _OLDEST_DRIVER:
            raise DeviceError(f"the NVIDIA driver is too old; {_UPDATE}")
        self._device = self.call("cuDeviceGet", 0)
        self._context = self.call("cuDevicePrimaryCtxRetain", self._device)
        self.use()

    def use(self) -> None:
        """Make the context current on the calling thread."""
        self.call("cuCtxSetCurrent", self._context)

    def call(self, function: str, *args: Any) -> Any:
        """What the driver's function returns behind its status: None, a value, or a tuple. Raises DeviceError."""
        try:
            status, *results = getattr(self.api, function)(*args)
        except RuntimeError as e:  # what the bindings raise where libcuda, or a function in it, is missing
            mend = (
                _UPDATE if "not found" in str(e) else "install the NVIDIA driver, or serve on the CPU with --target cpu"
            )
            raise DeviceError(f"{e}; {mend}") from e
        if int(status):
            raise DeviceError(self._explain(function, status))
        return results[0] if len(results) == 1 else tuple(results) if results else None

    def _explain(self, function: str, status: Any) -> str:
        text = f"{function}: {getattr(status, 'name', 'error')} ({int(status)})"
        mend = _MEND.get(int(status))
        return f"{mend} [{text}]" if mend else text

    @property
    def arch(self) -> str:
        """Like "sm_90"."""
        kind = self.api.CUdevice_attribute
        major, minor = (
            self.call("cuDeviceGetAttribute", attribute, self._device)
            for attribute in (
                kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        return f"sm_{major}{minor}"

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the GPU."""
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int, what: str) -> int:
        """Address of `size` bytes on the GPU. Raises DeviceError that names `what` they are for."""
        try:
            return int(self.call("cuMemAlloc", max(size, 1)))
        except DeviceError as e:
            free, total = self.memory()
            raise DeviceError(
                f"{what} {size >> 20} MiB; the GPU has {free >> 20} of {total >> 20} MiB free: {e}"
            ) from e

    def event(self) -> Any:
        """For waiting, without a time."""
        return self.call("cuEventCreate", self.api.CUevent_flags.CU_EVENT_DISABLE_TIMING)

    def stream(self) -> Any:
        """One that does not wait for the default stream."""
        return self.call("cuStreamCreate", self.api.CUstream_flags.CU_STREAM_NON_BLOCKING)
