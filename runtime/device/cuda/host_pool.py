"""Host memory for KV pages that the GPU copies to and from by itself: page-locked in blocks, by a thread, after ready.

A block's pages are made before they are locked, huge ones where the system has them: locking holds a lock of the
driver's, which a step's launch may want, and takes the less of it the fewer pages there are.
"""

from __future__ import annotations

import ctypes
import sys
from threading import Thread

from oi.runtime.device.cuda.driver import Driver
from oi.runtime.errors import DeviceError

__all__ = ["HostPool"]

_BLOCK = 128 << 20
"""Bytes, about."""
_HUGE = 2 << 20
_READ_WRITE, _PRIVATE_ANONYMOUS = 3, 0x22
_HUGE_PAGES, _POPULATE = 14, 23
"""Advice of Linux; where it does not know one, nothing happens."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class HostPool:
    """`num_slots` of `page_bytes` each can be used by now, numbered from 0; one lies in one block. Never freed."""

    def __init__(self, driver: Driver, most: int, page_bytes: int, block: int = _BLOCK) -> None:
        """Begins to grow to `most` slots. Where memory ends before, it says so and stays as it is."""
        self.num_slots = 0
        self.page_bytes = page_bytes
        self._driver = driver
        self._most = most
        self.slots_of_block = max(1, block // page_bytes)
        """Slots side by side in memory: those of one block."""
        self._blocks: list[int] = []
        self._grower = Thread(target=self._grow, name="host pool", daemon=True)
        self._grower.start()

    def address(self, slot: int) -> int:
        return self._blocks[slot // self.slots_of_block] + slot % self.slots_of_block * self.page_bytes

    def wait(self) -> None:
        """Until it grows no more; for tests and benches."""
        self._grower.join()

    def _grow(self) -> None:
        self._driver.use()
        while self.num_slots < self._most:
            slots = min(self.slots_of_block, self._most - self.num_slots)
            try:
                self._blocks.append(self._lock(slots * self.page_bytes))
            except (OSError, DeviceError) as e:
                print(
                    f"oi: the host tier stays at {self.num_slots * self.page_bytes >> 20} MiB, of "
                    f"{self._most * self.page_bytes >> 20}: {e}; lower --kv-offload-host-gib",
                    file=sys.stderr,
                    flush=True,
                )
                return
            self.num_slots += slots

    def _lock(self, size: int) -> int:
        """The address of `size` bytes. Raises OSError, DeviceError."""
        found = _libc.mmap(None, size + _HUGE, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
        if found in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "no more memory")
        address: int = -(-found // _HUGE) * _HUGE
        for advice in (_HUGE_PAGES, _POPULATE):
            _libc.madvise(address, size, advice)
        self._driver.call("cuMemHostRegister", address, size, 0)
        return address
