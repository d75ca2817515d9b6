"""Start the engine process: a fork of this one, made before anything else is loaded, so that both load at once.

Imports next to nothing, and must be called before there are threads.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from _thread import allocate_lock
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from oi.runtime.engine_settings import EngineSettings

__all__ = ["EngineChild", "Process", "spawn"]

_POLL_SECONDS = 0.005


class Process:
    """A child that was forked. Safe to use from several threads."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._lock = allocate_lock()

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        with self._lock:
            if self._code is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._code = os.waitstatus_to_exitcode(status)
            return self._code

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} runs on after {seconds} s")
            time.sleep(_POLL_SECONDS)
        return code

    def end(self) -> None:
        """Kill it where it still runs, and wait until it is gone."""
        while self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)


class EngineChild(NamedTuple):
    process: Process
    socket: socket.socket
    """Our end; end of file there means that the process is gone, and the child leaves when its own end closes."""

    def configure(self, settings: EngineSettings) -> None:
        """Tell it what to serve, for which it waits. That it is gone already is said where its answer is read."""
        from oi.runtime.engine_settings import send

        send(self.socket, settings)


def _engine(connection: socket.socket, gpu: bool) -> int:
    from oi.runtime.device.cuda.wake import rouse

    if gpu:
        rouse()
    from oi.runtime.engine_process import main

    return main(connection)


def spawn(*, gpu: bool = False, run: Callable[[socket.socket, bool], int] = _engine) -> EngineChild:
    """`gpu`: it may serve on one, if there is one here. `run` is the child's work: given its end of the socket, and
    `gpu`; returns the exit code."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        _become(lambda: run(theirs, gpu))
    theirs.close()
    return EngineChild(Process(pid), ours)


def _become(work: Callable[[], int]) -> None:
    """The child from here to its end."""
    code = 1
    try:
        os.setpgid(0, 0)  # a Ctrl-C at the terminal is the parent's to answer
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # memory of this size is faster given back by the system than taken apart object by object
