"""What a server's process tree holds, on the host and on the device."""

from __future__ import annotations

import csv
import subprocess
import threading
import time
from typing import Any

import psutil

__all__ = ["Sampler", "device", "gpu", "resident", "usage"]

_RSS_SECONDS = 0.05
_PSS_EVERY = 20
"""Proportional size is read each so many samples: the kernel walks all page tables for it."""


def usage(pid: int) -> dict[str, float]:
    """MB of the process and all below it: resident (shared pages counted in each), and proportional."""
    processes = _tree(pid)
    sizes = [info for process in processes if (info := _full(process)) is not None]
    return {
        "rss_mb": round(sum(i.rss for i in sizes) / 1e6, 1),
        "pss_mb": round(sum(i.pss for i in sizes) / 1e6, 1),
        "processes": len(sizes),
    }


def resident(pid: int) -> float:
    """MB resident of the process and all below it, shared pages counted in each. Far cheaper than `usage`."""
    return round(sum(map(_rss, _tree(pid))) / 1e6, 1)


def gpu() -> dict[str, str] | None:
    """Name and driver of the first NVIDIA GPU; None where there is none."""
    rows = _smi("--query-gpu=name,driver_version")
    return {"gpu": rows[0][0], "driver": rows[0][1]} if rows else None


def device(pid: int) -> dict[str, float | None] | None:
    """MB of device memory: of the process tree, and of all that runs on the GPUs; None without an NVIDIA GPU.

    In a container the driver may not know our process ids; then the tree's is None.
    """
    used = _smi("--query-gpu=memory.used")
    if not used:
        return None
    pids = {process.pid for process in _tree(pid)}
    ours = [
        _mb(row[1]) for row in _smi("--query-compute-apps=pid,used_memory") if row[0].isdigit() and int(row[0]) in pids
    ]
    return {
        "tree_mb": sum(m for m in ours if m is not None) if ours and None not in ours else None,
        "gpus_mb": sum(m for row in used if (m := _mb(row[0])) is not None),
    }


class Sampler:
    """The peak of a process tree's memory while it is open; sizes are sampled 20 times a second."""

    def __init__(self, pid: int | None) -> None:
        self.peak = {"rss_mb": 0.0, "pss_mb": 0.0}
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Sampler:
        if self._pid is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._pid is not None:
            self._thread.join()
            self._raise(usage(self._pid))

    def _watch(self) -> None:
        assert self._pid is not None
        samples = 0
        while not self._stop.is_set():
            if samples % _PSS_EVERY == 0:
                self._raise(usage(self._pid))
                processes = _tree(self._pid)
            self._raise({"rss_mb": round(sum(_rss(process) for process in processes) / 1e6, 1)})
            samples += 1
            time.sleep(_RSS_SECONDS)

    def _raise(self, sizes: dict[str, float]) -> None:
        for name in self.peak.keys() & sizes.keys():
            self.peak[name] = max(self.peak[name], sizes[name])


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _full(process: psutil.Process) -> Any:
    try:
        return process.memory_full_info()
    except psutil.Error:
        return None


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _smi(query: str) -> list[list[str]]:
    try:
        out = subprocess.run(["nvidia-smi", query, "--format=csv,noheader,nounits"], capture_output=True, text=True)
    except OSError:
        return []
    return (
        [[cell.strip() for cell in row] for row in csv.reader(out.stdout.splitlines())] if out.returncode == 0 else []
    )


def _mb(mebibytes: str) -> float | None:
    """nvidia-smi says `[N/A]` where it does not know."""
    return round(float(mebibytes) * 1.048576, 1) if mebibytes.replace(".", "").isdigit() else None
