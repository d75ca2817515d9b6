"""The engine process as a fork: what it begins with, and how its end is seen."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from oi.runtime.engine_child import Process


def fork(code: str) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own, because this one has threads."""
    script = f"""
import os, socket, sys, time
from oi.runtime.engine_child import spawn
from oi.runtime.engine_settings import EngineSettings, receive
{code}
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)


def test_it_hears_what_to_serve_and_whether_a_gpu_may() -> None:
    found = fork("""
def run(connection, gpu):
    connection.sendall(f"{receive(connection).artifact} {gpu} {sys.stdin.read()!r}".encode())
    return 5
child = spawn(gpu=True, run=run)
child.configure(EngineSettings("a", "b"))
print(child.socket.recv(100).decode(), child.process.wait(5), child.socket.recv(1))
""")
    assert (found.stdout, found.stderr) == ("a True '' 5 b''\n", "")


def test_its_failure_is_its_own() -> None:
    found = fork("""
def run(connection, gpu):
    raise SystemError("nothing works")
child = spawn(run=run)
print(child.process.wait(5))
child.configure(EngineSettings("a", "b"))  # to nobody
""")
    assert found.stdout == "1\n"
    assert found.stderr.splitlines()[-1] == "SystemError: nothing works"
    assert found.returncode == 0


def test_it_loads_nothing_before_the_fork() -> None:
    """What the parent has loaded when it forks is what it was kept waiting for."""
    heavy = ["asyncio", "aiohttp", "msgspec", "dataclasses", "subprocess", "logging", "ctypes", "numpy", "tokenizers"]
    code = f"import sys; import oi.runtime.cli; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


def sleeper() -> Process:
    return Process(os.posix_spawn(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"], os.environ))


def test_its_end_is_waited_for() -> None:
    process = sleeper()
    assert process.poll() is None
    with pytest.raises(TimeoutError):
        process.wait(0.02)
    process.end()
    assert process.poll() == process.wait(0) == -signal.SIGKILL
    process.end()


def test_oi_run_leaves_nobody_behind() -> None:
    """Where it finds an error after the engine was started."""
    here, there = socket.socketpair()
    with here:
        with there:
            command = [sys.executable, "-m", "oi.runtime.cli", "x", "--model", "./nowhere"]
            # whoever is left keeps this descriptor open
            found = subprocess.run(command, pass_fds=[there.fileno()], capture_output=True, timeout=30, check=False)
        assert found.returncode == 2
        here.settimeout(5)
        began = time.monotonic()
        assert here.recv(1) == b""
        assert time.monotonic() - began < 1
