"""Memory is that of the whole tree, its peak is seen, and a cold cache is cold."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.serve import memory, pagecache

_MB = 1_000_000
_CHILD = """
import subprocess, sys, time
held = b'x' * 60_000_000
child = subprocess.Popen([sys.executable, '-c', "held = b'x' * 50_000_000; print(1, flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(1, flush=True)
input()
more = b'x' * 80_000_000
time.sleep(0.3)
del more
print(1, flush=True)
input()
"""


def test_tree_and_peak() -> None:
    process = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        idle = memory.usage(process.pid)
        assert idle["processes"] == 2
        assert 110 <= idle["pss_mb"] <= idle["rss_mb"] <= 160
        with memory.Sampler(process.pid) as sampler:
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            time.sleep(0.1)
        assert memory.usage(process.pid)["rss_mb"] < idle["rss_mb"] + 20
        assert idle["rss_mb"] + 75 <= sampler.peak["rss_mb"] <= idle["rss_mb"] + 100
        assert sampler.peak["pss_mb"] >= idle["pss_mb"] - 1
    finally:
        process.kill()
        process.wait()
    assert memory.usage(process.pid)["rss_mb"] == 0


def test_dropping_files_from_the_page_cache(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 5 * _MB)
    (tmp_path / "empty").touch()
    files = list(tmp_path.iterdir())
    pagecache.fill(files)
    assert pagecache.resident(files) == 1
    if reason := pagecache.drop(files):
        assert "stayed" in reason
        pytest.skip(f"this file system keeps its cache: {reason}")
    assert pagecache.resident(files) <= 0.01
    with file.open("rb") as held:
        held.read(2 * _MB)
        assert 0.3 < pagecache.resident(files) <= 1


@pytest.mark.parametrize(
    ("query", "lines", "expected"),
    [
        ("per process", "11, 500\n99, 7\n", {"tree_mb": 524.3, "gpus_mb": 1048.6}),
        ("foreign ids", "99, 7\n", {"tree_mb": None, "gpus_mb": 1048.6}),
        ("unknown sizes", "11, [N/A]\n", {"tree_mb": None, "gpus_mb": 1048.6}),
    ],
)
def test_device_memory(monkeypatch: pytest.MonkeyPatch, query: str, lines: str, expected: dict[str, float]) -> None:
    class Process:
        pid = 11

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            command, 0, "1000\n" if "memory.used" in command[1].split("=")[1].split(",")[0] else lines
        )

    monkeypatch.setattr(memory, "_tree", lambda pid: [Process()])
    monkeypatch.setattr(memory.subprocess, "run", run)
    assert memory.device(11) == expected


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(memory.subprocess, "run", run)
    assert memory.device(1) is None
    assert memory.gpu() is None
