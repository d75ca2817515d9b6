"""The GPU is woken for an artifact that is for a GPU, and nothing is ever said about it."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from oi.runtime.device.cuda import wake as module
from oi.runtime.device.cuda.wake import rouse, wake
from oi.runtime.manifest import CpuMachine
from tests.runtime.device.cuda_model import write_model


def wait() -> None:
    for thread in threading.enumerate():
        if thread.name == "wake":
            thread.join(10)


class Library:
    """libcuda, where it is there."""

    def __init__(self, called: list[str]) -> None:
        self._called = called

    def cuInit(self, flags: int) -> int:  # noqa: N802
        self._called.append("cuInit")
        return 0

    def cuDevicePrimaryCtxRetain(self, context: object, device: int) -> int:  # noqa: N802
        self._called.append("cuDevicePrimaryCtxRetain")
        return 0


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    called: list[str] = []

    def load(name: str) -> Library:
        assert name == "libcuda.so.1"
        return Library(called)

    monkeypatch.setattr(module.ctypes, "CDLL", load)
    return called


def test_for_a_gpu(tmp_path: Path, called: list[str]) -> None:
    artifact, _ = write_model(tmp_path)
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(artifact.manifest))
    wake(tmp_path)
    wait()
    assert called == ["cuInit", "cuDevicePrimaryCtxRetain"]


def test_before_anybody_knows_what_for_no_memory_is_taken(called: list[str]) -> None:
    rouse()
    wait()
    assert called == ["cuInit"]


def test_not_for_a_cpu_nor_for_what_is_no_artifact(tmp_path: Path, called: list[str]) -> None:
    wake(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    wake(tmp_path)
    artifact, _ = write_model(tmp_path)
    on_cpu = replace(artifact.manifest, target=CpuMachine("x86_64", "", []))
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(on_cpu))
    wake(tmp_path)
    wait()
    assert called == []


@pytest.mark.parametrize("there", [False, True], ids=["no driver", "a library that is none"])
def test_no_driver(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(name: str) -> ctypes.CDLL:
        if not there:
            raise OSError(name)
        return real(None)

    real = ctypes.CDLL
    monkeypatch.setattr(module.ctypes, "CDLL", load)
    artifact, _ = write_model(tmp_path)
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(artifact.manifest))
    rouse()
    wake(tmp_path)
    wait()
    assert capsys.readouterr() == ("", "")
