"""The GPU that this machine would serve on, without waking it: asked of NVIDIA's management library."""

from __future__ import annotations

import ctypes

__all__ = ["host_gpu"]

_OK = 0


def host_gpu() -> str | None:
    """The architecture of GPU 0, like "sm_90"; None where no NVIDIA GPU or no driver is found.

    `nvmlInit` takes some milliseconds, where `cuInit` takes hundreds.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    if nvml.nvmlInit_v2() != _OK:
        return None
    try:
        if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) != _OK:
            return None
        if nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor)) != _OK:
            return None
    finally:
        nvml.nvmlShutdown()
    return f"sm_{major.value}{minor.value}"
