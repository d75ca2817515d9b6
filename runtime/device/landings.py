"""Copies that have landed: told by the threads that see it, taken by the engine's."""

from __future__ import annotations

import os
import select
from threading import Lock

from oi.runtime.copies import Landed

__all__ = ["Landings"]


class Landings:
    """A mailbox with a descriptor, so that the engine may wait for it and for messages at once."""

    def __init__(self) -> None:
        self._told: list[Landed] = []
        self._lock = Lock()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def tell(self, landed: Landed) -> None:
        with self._lock:
            self._told.append(landed)
            os.eventfd_write(self._event, 1)

    def take(self) -> list[Landed]:
        """All that was told since; does not wait."""
        if not self._told:
            return []
        with self._lock:
            os.eventfd_read(self._event)
            taken, self._told = self._told, []
        return taken

    def wait(self) -> None:
        """Until there is something to take."""
        select.select([self._event], [], [])

    def fileno(self) -> int:
        return self._event
