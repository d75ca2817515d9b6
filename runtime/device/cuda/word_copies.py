"""Copies of a step's inputs and results over the bus, by a kernel of the library (WordCopy)."""

from __future__ import annotations

import ctypes
from typing import Any

from oi.runtime.cuda_library import CudaLibrary
from oi.runtime.device.cuda.driver import Driver
from oi.runtime.device.cuda.graphs import Kernels

__all__ = ["WordCopies"]

_PARAMS = 5
"""to, source, words, and the two that every kernel of Triton's takes besides, null."""


class WordCopies:
    """One set of parameters serves all: a launch copies them."""

    def __init__(self, driver: Driver, kernels: Kernels, library: CudaLibrary, stream: Any) -> None:
        name = library.word_copy.kernel
        self._driver = driver
        self._stream = stream
        self._function = kernels[name]
        self._threads = library.kernels[name].threads
        self._words = library.word_copy.words
        self._params = (ctypes.c_uint64 * _PARAMS)()
        first = ctypes.addressof(self._params)
        self._pointers = (ctypes.c_uint64 * _PARAMS)(*(first + 8 * i for i in range(_PARAMS)))
        self._pointers_at = ctypes.addressof(self._pointers)

    def copy(self, to: int, source: int, words: int) -> None:
        """Queue it on the steps' stream. One address is on the GPU, the other in pinned memory."""
        if not words:
            return
        self._params[:3] = [to, source, words]  # of an i32 the kernel reads the lower half
        grid = -(-words // self._words)
        self._driver.call(
            "cuLaunchKernel", self._function, grid, 1, 1, self._threads, 1, 1, 0, self._stream, self._pointers_at, 0
        )
