"""Start the engine process. Imports next to nothing, so that the child is on its way before anything else loads."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from oi.runtime.engine_settings import EngineSettings

__all__ = ["ENGINE", "EngineChild", "spawn"]

ENGINE = (sys.executable, "-m", "oi.runtime.engine_process")


class EngineChild(NamedTuple):
    process: subprocess.Popen[bytes]
    socket: socket.socket
    """Our end; end of file there means that the process is gone, and the child leaves when its own end closes."""


def spawn(settings: EngineSettings, command: Sequence[str] = ENGINE) -> EngineChild:
    """`command` is given the file descriptor of its end of the socket, and the settings as JSON."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno()), msgspec.json.encode(settings).decode()],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            process_group=0,  # a Ctrl-C at the terminal is ours to answer
        )
    return EngineChild(process, ours)
