"""The GPU that this machine would serve on, without waking it: asked of NVIDIA's management library."""

from __future__ import annotations

import ctypes
import os

__all__ = ["host_gpu"]

_OK = 0


def host_gpu() -> str | None:
    """The architecture of the first GPU that CUDA_VISIBLE_DEVICES leaves, like "sm_90".

    One that it names otherwise than by number counts as the machine's first. None where no NVIDIA GPU or no driver is
    found. `nvmlInit` takes some milliseconds, where `cuInit` takes hundreds.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not first or first.startswith("-"):
        return None
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2() != _OK:
        return None
    try:
        return _architecture(nvml, int(first) if first.isdecimal() else 0)
    finally:
        nvml.nvmlShutdown()


def _architecture(nvml: ctypes.CDLL, number: int) -> str | None:
    device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) != _OK:
        return None
    if nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor)) != _OK:
        return None
    return f"sm_{major.value}{minor.value}"
