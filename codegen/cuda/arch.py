"""The GPU architectures that can be compiled for, and the GPU of each that launches are laid out for."""

from __future__ import annotations

from dataclasses import dataclass

from oi.codegen.errors import CompileError

__all__ = ["ARCHS", "Arch", "find_arch"]


@dataclass(frozen=True)
class Arch:
    """A compute capability. A GPU of it with more or fewer multiprocessors runs the same code, less evenly."""

    name: str
    capability: int
    gpu: str
    """That launches are laid out for."""
    multiprocessors: int
    shared_bytes: int
    """Most of one program, on the least GPU that runs the cubins."""

    @property
    def dependent_launches(self) -> bool:
        """Kernels may begin while the one ahead of them still runs."""
        return self.capability >= 90


ARCHS = {
    arch.name: arch
    for arch in (
        Arch("sm_80", 80, "A100", 108, 99 << 10),  # as sm_86, which runs its cubins; an A100 has 163 KB
        Arch("sm_89", 89, "RTX 4090", 128, 99 << 10),
        Arch("sm_90", 90, "H100 SXM", 132, 227 << 10),
        Arch("sm_120", 120, "RTX 5090", 170, 99 << 10),
    )
}


def find_arch(name: str) -> Arch:
    """Raises CompileError for one that has no kernels."""
    if name not in ARCHS:
        raise CompileError(f"there are no kernels for {name!r}; choose from {', '.join(ARCHS)}")
    return ARCHS[name]
