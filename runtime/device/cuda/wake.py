"""Wake the GPU in the background while Python loads what the engine needs: each takes some tenths of a second."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

import msgspec

from oi.runtime.manifest import CudaMachine, Target

__all__ = ["wake"]


class _Head(msgspec.Struct):
    target: Target


def wake(artifact: Path) -> None:
    """If the artifact is for a GPU. Whatever is wrong is left to be said when it is opened."""
    with suppress(OSError, msgspec.MsgspecError):
        head = msgspec.json.decode((artifact / "manifest.json").read_bytes(), type=_Head)
        if isinstance(head.target, CudaMachine):
            Thread(target=_wake, name="wake", daemon=True).start()


def _wake() -> None:
    with suppress(ImportError, RuntimeError):  # RuntimeError: the bindings found no libcuda
        driver = import_module("cuda.bindings.driver")
        driver.cuInit(0)
        driver.cuDevicePrimaryCtxRetain(0)
