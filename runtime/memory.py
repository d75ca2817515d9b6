"""The machine's memory, and this process's.

glibc's allocator keeps much of what is freed; a process that loads much and then works little wants it gone.

With another C library these do nothing.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["GIB", "available", "give_back", "keep_little"]

GIB = 1 << 30

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 1 << 17


def available() -> int:
    """Bytes to be had without swapping, the page cache's counted in; in a container, no more than it may."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            found = int(line.split()[1]) << 10
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.exists() else "max"
    return min(found, int(allowed)) if allowed.isdigit() else found


def keep_little() -> None:
    """One heap for all threads, which reuses what another has freed; large blocks go back to the system at once."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """To the system, all that is free."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
