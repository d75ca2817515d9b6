"""Wake the GPU in the background while Python loads what the engine needs: each takes some tenths of a second.

Whatever is wrong is left to be said when the GPU is opened. The driver is called through ctypes: it is there at once.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

__all__ = ["rouse", "wake"]


def rouse() -> None:
    """Have the driver look for GPUs, where there is a driver. That needs no memory of a GPU's, unlike `wake`."""
    Thread(target=_rouse, name="wake", daemon=True).start()


def wake(artifact: Path) -> None:
    """If the artifact is for a GPU, make its context."""
    if _is_for_gpu(artifact):
        Thread(target=_wake, name="wake", daemon=True).start()


def _is_for_gpu(artifact: Path) -> bool:
    import msgspec

    from oi.runtime.manifest import CudaMachine, Target

    head = msgspec.defstruct("Head", [("target", Target)])
    try:
        found: Any = msgspec.json.decode((artifact / "manifest.json").read_bytes(), type=head)
    except (OSError, msgspec.MsgspecError):
        return False
    return isinstance(found.target, CudaMachine)


def _rouse() -> None:
    with suppress(OSError, AttributeError):  # no driver, or no such function in it
        ctypes.CDLL("libcuda.so.1").cuInit(0)


def _wake() -> None:
    with suppress(OSError, AttributeError):
        cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
        cuda.cuInit(0)
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
