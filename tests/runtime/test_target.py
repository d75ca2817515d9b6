"""The target that serves: what is asked for, or the GPU that is here where there are kernels that it runs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from oi.runtime import host_gpu as nvml
from oi.runtime import target
from oi.runtime.errors import DeviceError
from oi.runtime.host_gpu import host_gpu
from oi.runtime.target import choose_target, cubins_for, runs_on


@pytest.mark.parametrize(
    ("gpu", "cubins"),
    [
        ("sm_75", None),
        ("sm_80", "sm_80"),
        ("sm_86", "sm_80"),
        ("sm_87", "sm_80"),
        ("sm_89", "sm_89"),
        ("sm_90", "sm_90"),
        ("sm_100", None),
        ("sm_103", None),
        ("sm_120", "sm_120"),
        ("sm_121", None),
        ("sm_90a", None),
        ("", None),
    ],
)
def test_cubins_run_on_their_own_kind_and_old_ones_on_later_minor_versions(gpu: str, cubins: str | None) -> None:
    assert cubins_for(gpu) == cubins
    assert cubins is None or runs_on(cubins, gpu)
    assert not runs_on("sm_89", "sm_86")


@pytest.mark.parametrize(
    ("wanted", "gpu", "expected"),
    [
        ("auto", None, "cpu"),
        ("auto", "sm_90", "cuda:sm_90"),
        ("auto", "sm_86", "cuda:sm_80"),
        ("cpu", "sm_90", "cpu"),
        ("cuda:sm_86", None, "cuda:sm_80"),
        ("cuda:sm_120", "sm_90", "cuda:sm_120"),
    ],
)
def test_choice(wanted: str, gpu: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "host_gpu", lambda: gpu)
    assert choose_target(wanted) == (expected, None)


@pytest.mark.parametrize("gpu", ["sm_75", "sm_100", "sm_121"])
def test_a_gpu_without_kernels_is_left_out_with_a_reason(gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "host_gpu", lambda: gpu)
    name, note = choose_target()
    assert name == "cpu"
    assert note is not None
    assert gpu in note
    with pytest.raises(DeviceError, match=f"no kernels for '{gpu}'; choose --target from cuda:sm_80"):
        choose_target(f"cuda:{gpu}")


@pytest.mark.parametrize("name", ["tpu", "cuda", "cuda:", "cuda:sm_x", "sm_90", ""])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(DeviceError, match="choose --target from"):
        choose_target(name)


class FakeNvml:
    """GPUs by number: their compute capabilities."""

    def __init__(self, *gpus: tuple[int, int]) -> None:
        self.gpus = gpus
        self.open = False

    def nvmlInit_v2(self) -> int:  # noqa: N802
        self.open = True
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.open = False
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: int, device: Any) -> int:  # noqa: N802
        if number >= len(self.gpus):
            return 2
        device._obj.value = number + 1
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> int:  # noqa: N802
        major._obj.value, minor._obj.value = self.gpus[device.value - 1]
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    fake = FakeNvml((9, 0), (12, 0))
    stand_in = SimpleNamespace(CDLL=lambda name: fake, c_void_p=ctypes.c_void_p, c_int=ctypes.c_int, byref=ctypes.byref)
    monkeypatch.setattr(nvml, "ctypes", stand_in)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield fake
    assert not fake.open


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, "sm_90"), ("0,1", "sm_90"), ("1,0", "sm_120"), ("", None), ("-1", None), ("7", None), ("GPU-ab", "sm_90")],
)
def test_the_first_gpu_that_cuda_sees(
    visible: str | None, expected: str | None, library: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert host_gpu() == expected


def test_no_gpu(library: FakeNvml) -> None:
    library.gpus = ()
    assert host_gpu() is None


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(nvml.ctypes, "CDLL", missing)
    assert host_gpu() is None
