"""Which target serves: by name, or for `auto` the GPU that is here where oi has kernels that it runs, else the CPU."""

from __future__ import annotations

from typing import NamedTuple

from oi.runtime.errors import DeviceError
from oi.runtime.host_gpu import host_gpu

__all__ = ["ARCHITECTURES", "Choice", "choose_target", "cubins_for", "runs_on"]

ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_120")
"""That oi has kernels for; described in codegen/cuda/arch.py."""


class Choice(NamedTuple):
    target: str
    """`cpu`, or like "cuda:sm_90", one of ARCHITECTURES."""
    note: str | None = None
    """Why the GPU that is here is left out."""


def choose_target(wanted: str = "auto") -> Choice:
    """For `auto`, `cpu` or a GPU like "cuda:sm_86", whose cubins may be another's. Raises DeviceError."""
    if wanted == "auto":
        return _here()
    kind, _, arch = wanted.partition(":")
    if wanted == "cpu":
        return Choice(wanted)
    if kind != "cuda":
        raise DeviceError(f"there is no target {wanted!r}; choose --target from auto, {_known()}")
    cubins = cubins_for(arch)
    if cubins is None:
        raise DeviceError(f"there are no kernels for {arch!r}; choose --target from {_known()}")
    return Choice(f"cuda:{cubins}")


def _here() -> Choice:
    gpu = host_gpu()
    if gpu is None:
        return Choice("cpu")
    cubins = cubins_for(gpu)
    if cubins is None:
        return Choice("cpu", f"this GPU is {gpu}, for which there are no kernels ({_known()}): the CPU is used")
    return Choice(f"cuda:{cubins}")


def cubins_for(gpu: str) -> str | None:
    """The best of ARCHITECTURES whose cubins a GPU of this one runs."""
    return next((arch for arch in reversed(ARCHITECTURES) if runs_on(arch, gpu)), None)


def runs_on(cubins: str, gpu: str) -> bool:
    """Whether a GPU runs cubins of an architecture: its own, and before sm_90 those of a lower minor version.

    From there on Triton compiles for the one architecture only, with all that it has (sm_90a).
    """
    if cubins == gpu:
        return True
    try:
        (major, minor), (own_major, own_minor) = (divmod(int(a.removeprefix("sm_")), 10) for a in (cubins, gpu))
    except ValueError:
        return False
    return major == own_major < 9 and minor <= own_minor


def _known() -> str:
    return ", ".join(f"cuda:{arch}" for arch in ARCHITECTURES) + " and cpu"
