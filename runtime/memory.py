"""glibc's allocator keeps much of what is freed; a process that loads much and then works little wants it gone.

With another C library these do nothing.
"""

from __future__ import annotations

import ctypes

__all__ = ["give_back", "keep_little"]

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 1 << 17


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
