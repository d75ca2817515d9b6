"""What a result was measured on, for every JSON under bench/results/."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "oi",
    "numpy",
    "apache-tvm",
    "triton",
    "cuda-bindings",
    "torch",
    "transformers",
    "tokenizers",
    "aiohttp",
)


def describe() -> dict[str, Any]:
    """Machine, versions, commit (with `+` where the tree was changed) and time."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            **_gpu(),
        },
        "versions": {name: v for name in _PACKAGES if (v := _version(name))},
    }


def command(argv: Sequence[str], program: str) -> str:
    """`python -m PROGRAM …` as it can be written down: of absolute paths their last part, of addresses none."""
    return " ".join([f"python -m {program}", *map(_anonymous, argv)])


def _anonymous(argument: str) -> str:
    flag, equals, value = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    if "://" in value:
        return "URL"
    return flag + equals + (Path(value).name if value.startswith(("/", "~")) else value)


def resident_bytes() -> int:
    """Of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))


def _cpu() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else platform.machine()


def _gpu() -> dict[str, str]:
    """The first GPU's name and driver, where there is one."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return {}
    name, _, driver = found.partition(",")
    return {"gpu": name.strip(), "driver": driver.strip()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    root = Path(__file__).parent.parent
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
