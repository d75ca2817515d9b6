"""The kernel's cache of a checkpoint's files: filling it, emptying it, and looking what is in it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["drop", "fill", "resident"]

_libc = ctypes.CDLL(None, use_errno=True)


def fill(files: Sequence[Path]) -> None:
    for file in files:
        with file.open("rb", buffering=0) as f:
            while f.read(1 << 24):
                pass


def drop(files: Sequence[Path]) -> str | None:
    """Empty it of the files. None, or why they are still there: no file system and no sandbox has to obey."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # dirty pages stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    left = resident(files)
    return f"{left:.0%} of the checkpoint stayed in the page cache" if left > 0.01 else None


def resident(files: Sequence[Path]) -> float:
    """The share of the files' pages that is in memory."""
    counts = [_pages(file) for file in files if file.stat().st_size]
    return sum(there for there, _ in counts) / max(1, sum(all_ for _, all_ in counts))


def _pages(file: Path) -> tuple[int, int]:
    """Pages in memory, pages."""
    size = file.stat().st_size
    with file.open("rb") as f, mmap.mmap(f.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        states = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        view = (ctypes.c_char * size).from_buffer(mapped)
        failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), states)
        del view  # or the map cannot be closed
        if failed:
            raise OSError(ctypes.get_errno(), "mincore", str(file))
        return sum(state & 1 for state in bytes(states)), len(states)
