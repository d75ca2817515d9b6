"""What the runtime asks of a device. The CPU is in cpu.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUMPY_DTYPE", "Device", "io_shape"]


class Device(Protocol):
    """Owns all memory of a loaded artifact: weights, KV pages, scratch, and the io buffers named in the manifest.

    Everything is allocated when it is made; nothing after.
    """

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Fill the io buffer `name` with a contiguous array of the buffer's dtype, up to its largest shape."""

    def run(self, program: str, dims: Mapping[str, int]) -> None:
        """Run every launch of a program with these sizes of the symbolic dims. Raises DeviceError."""

    def read(self, name: str, dims: Mapping[str, int]) -> NDArray[Any]:
        """The io buffer `name` in its shape under `dims`, on the host. Valid until the next `run`."""


def io_shape(shape: list[int | str], dims: Mapping[str, int]) -> tuple[int, ...]:
    """A buffer's shape with its symbolic dims replaced."""
    return tuple(d if isinstance(d, int) else dims[d] for d in shape)


NUMPY_DTYPE: dict[str, Any] = {"f32": np.float32, "i32": np.int32, "bf16": np.uint16}
"""How the host holds each dtype; bf16 as its bits."""
