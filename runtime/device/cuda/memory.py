"""All memory on the GPU, planned before any is taken; nothing is allocated after.

Three allocations: the weights, first, so that they are uploaded while all else is made ready; everything else of
known size; and the KV pages, out of what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from oi.runtime.cuda_library import CudaLibrary
from oi.runtime.device.base import io_shape
from oi.runtime.device.cuda.driver import Driver
from oi.runtime.device.cuda.inputs import EDITS, PER_ROW, STEP
from oi.runtime.errors import DeviceError
from oi.runtime.manifest import Manifest

__all__ = ["Work", "left_for_pages", "output_bytes", "work_sizes"]

_ALIGN = 1024
_ITEMSIZE = {"f32": 4, "i32": 4, "bf16": 2}
_INPUTS = {*STEP, *PER_ROW, *EDITS}

_KEEP = 512 << 20


class Work:
    """Addresses of what has a known size, by name; in one allocation, zeroed once."""

    def __init__(self, driver: Driver, sizes: Mapping[str, int], stream: Any) -> None:
        places, end = {}, 0
        for name, size in sizes.items():
            places[name] = end
            end += -(-size // _ALIGN) * _ALIGN
        base = driver.allocate(end, "activations, logits and inputs take")
        driver.call("cuMemsetD8Async", base, 0, max(end, 1), stream)
        self._addresses = {name: base + place for name, place in places.items()}

    def __getitem__(self, name: str) -> int:
        return self._addresses[name]

    def group(self, prefix: str) -> dict[str, int]:
        """Addresses of the names that begin with `prefix`, without it."""
        return {name[len(prefix) :]: a for name, a in self._addresses.items() if name.startswith(prefix)}


def work_sizes(manifest: Manifest, library: CudaLibrary, rows: int, input_bytes: int) -> dict[str, int]:
    """Bytes by name: `arena`, `constants`, `inputs`, `edit:NAME`, `io:NAME` (outputs), `scratch:NAME`.

    `rows`: most rows of a step.
    """
    return {
        "arena": manifest.arena_bytes,
        "constants": manifest.files[manifest.constants].bytes if manifest.constants else 0,
        "inputs": input_bytes,
        **{f"edit:{name}": 4 * manifest.limits.max_edits for name in EDITS},
        **{f"io:{name}": size for name, size in output_bytes(manifest, rows).items()},
        **{f"scratch:{name}": size for name, size in library.scratch.items()},
    }


def output_bytes(manifest: Manifest, rows: int) -> dict[str, int]:
    """Of every io buffer that is no input: one for all programs, as large as the largest of them has it."""
    sizes: dict[str, int] = {}
    for program, content in manifest.programs.items():
        dims = {"T": rows if program == "decode" else manifest.limits.max_tokens, "S": rows, "R": rows}
        for name, buffer in content.buffers.items():
            if buffer.kind == "io" and name not in _INPUTS:
                size = prod(io_shape(buffer.shape, dims)) * _ITEMSIZE[buffer.dtype]
                sizes[name] = max(size, sizes.get(name, 0))
    return sizes


def left_for_pages(driver: Driver, page_bytes: int) -> int:
    """Bytes that KV pages may take when all but them and the graphs is there. Raises DeviceError where none fits.

    Half a GiB is kept for what the driver takes by itself: graphs (27 MiB measured for 8,800 nodes), and stacks of
    kernels that have one.
    """
    free, total = driver.memory()
    if free < _KEEP + page_bytes:
        raise DeviceError(
            f"weights and activations leave {free >> 20} of the GPU's {total >> 20} MiB free, graphs and a first KV "
            f"page take {_KEEP + page_bytes >> 20}: end what else uses it (nvidia-smi), or serve a smaller model"
        )
    return free - _KEEP
