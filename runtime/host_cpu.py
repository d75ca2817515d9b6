"""What CPU this machine has, in the terms that the compiler targets and the runtime checks. Linux only."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["HostCpu", "cpu_features", "host_cpu"]

_X86_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("x86-64-v2", frozenset(["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"])),
    ("x86-64-v3", frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"])),
    ("x86-64-v4", frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])),
)
"""The psABI's microarchitecture levels (LLVM knows them as CPU names), each with the flags it adds."""

_EXTRAS = {"aarch64": ("asimd", "asimdhp", "bf16")}
"""Flags beyond the level that kernels may use."""


@dataclass(frozen=True)
class HostCpu:
    """The machine as a target."""

    arch: str
    """As `platform.machine()` gives it."""
    mcpu: str
    """LLVM's name of the highest CPU level that this machine has in full."""
    features: tuple[str, ...]
    """Flags that a kernel for this target may use, sorted; named as in /proc/cpuinfo."""


@cache
def cpu_features() -> frozenset[str]:
    """All flags of the machine's CPU as /proc/cpuinfo names them; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    return parse_cpuinfo(text)


def parse_cpuinfo(text: str) -> frozenset[str]:
    """The flags that every processor in the text has (cores may differ)."""
    lines = (line.partition(":") for line in text.splitlines())
    flags = [frozenset(value.split()) for key, _, value in lines if key.strip() in ("flags", "Features")]
    return frozenset.intersection(*flags) if flags else frozenset()


def host_cpu() -> HostCpu:
    """This machine."""
    return describe(platform.machine(), cpu_features())


def describe(arch: str, flags: frozenset[str]) -> HostCpu:
    """The target that a machine of this arch with these flags is."""
    mcpu, used = ("x86-64" if arch == "x86_64" else "generic"), set[str]()
    if arch == "x86_64":
        for level, adds in _X86_LEVELS:
            if not adds <= flags:
                break
            mcpu, used = level, used | adds
    used |= flags & set(_EXTRAS.get(arch, ()))
    return HostCpu(arch, mcpu, tuple(sorted(used)))
