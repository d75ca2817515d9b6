"""Numba behind a typed decorator: reference kernels are plain loops, compiled so that tests stay quick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba  # type: ignore[import-untyped, unused-ignore]
import numpy as np

__all__ = ["Array", "jit"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

Array = np.ndarray[Any, np.dtype[Any]]


def jit(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile for each combination of argument types at its first call; kept on disk between runs."""
    compiled: Callable[_P, _R] = numba.njit(cache=True)(function)
    return compiled
