"""The GPU is woken for an artifact that is for a GPU, and nothing is ever said about it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from msgspec.structs import replace

from oi.runtime.device.cuda.wake import wake
from oi.runtime.manifest import CpuMachine
from tests.runtime.device.cuda_model import write_model


def wait() -> None:
    for thread in threading.enumerate():
        if thread.name == "wake":
            thread.join(10)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    called: list[str] = []
    driver = SimpleNamespace(
        cuInit=lambda flags: called.append("cuInit"),
        cuDevicePrimaryCtxRetain=lambda device: called.append("cuDevicePrimaryCtxRetain"),
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)
    return called


def test_for_a_gpu(tmp_path: Path, called: list[str]) -> None:
    artifact, _ = write_model(tmp_path)
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(artifact.manifest))
    wake(tmp_path)
    wait()
    assert called == ["cuInit", "cuDevicePrimaryCtxRetain"]


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


def test_no_bindings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    artifact, _ = write_model(tmp_path)
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(artifact.manifest))
    wake(tmp_path)
    wait()
    assert capsys.readouterr() == ("", "")
