"""The default artifact's name changes with all that shapes it, and is found without importing the compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from oi.runtime import artifact_path, target
from oi.runtime.artifact_path import artifact_key, cache_folder, default_path, installed_model_file
from oi.runtime.errors import ArtifactError
from oi.runtime.host_cpu import HostCpu

MODEL_FILE = installed_model_file("models/qwen3.py")


def key(target: str = "cpu") -> str:
    return artifact_key("c" * 64, None, MODEL_FILE, target)


def test_is_stable_and_short() -> None:
    assert key() == key()
    assert len(key()) == 32


def test_changes_with_config_limits_and_model_file(tmp_path: Path) -> None:
    other = tmp_path / "qwen3.py"
    other.write_bytes(MODEL_FILE.read_bytes() + b"\n# changed\n")
    keys = {
        key(),
        artifact_key("d" * 64, None, MODEL_FILE, "cpu"),
        artifact_key("c" * 64, (64, 8), MODEL_FILE, "cpu"),
        artifact_key("c" * 64, None, other, "cpu"),
    }
    assert len(keys) == 4


def test_a_copy_of_the_model_file_is_the_same_model(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.py"
    copy.write_bytes(MODEL_FILE.read_bytes())
    assert artifact_key("c" * 64, None, copy, "cpu") == key()


def test_changes_with_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before, gpus = key(), {key("cuda:sm_90"), key("cuda:sm_120")}
    monkeypatch.setattr(artifact_path, "host_cpu", lambda: HostCpu("x86_64", "x86-64-v9", ("avx99",)))
    assert key() != before
    assert {key("cuda:sm_90"), key("cuda:sm_120")} == gpus
    assert len({before, key(), *gpus}) == 4


def test_the_default_target_is_the_gpu_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "host_gpu", lambda: None)
    assert default_path("c" * 64) == default_path("c" * 64, target="cpu")
    monkeypatch.setattr(target, "host_gpu", lambda: "sm_90")
    assert default_path("c" * 64) == default_path("c" * 64, target="cuda:sm_90")


def test_gpus_that_run_the_same_cubins_share_an_artifact() -> None:
    assert default_path("c" * 64, target="cuda:sm_86") == default_path("c" * 64, target="cuda:sm_80")


def test_changes_with_the_compilers_sources_and_not_with_its_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("oi.ir", "oi.codegen", "oi.runtime"):
        (tmp_path / package / "kernels").mkdir(parents=True)
        (tmp_path / package / "kernels" / "a.py").write_text("1")
    for schema in ("manifest.py", "cuda_library.py"):
        (tmp_path / "oi.runtime" / schema).write_text("1")
    monkeypatch.setattr(artifact_path, "_package_folder", lambda package: tmp_path / package)
    keys = {key()}
    (tmp_path / "oi.codegen" / "kernels" / "a.py").write_text("2")
    keys.add(key())
    (tmp_path / "oi.codegen" / "kernels" / "b.cc").write_text("1")
    keys.add(key())
    (tmp_path / "oi.runtime" / "manifest.py").write_text("2")
    keys.add(key())
    assert len(keys) == 4
    (tmp_path / "oi.codegen" / "__pycache__").mkdir()
    (tmp_path / "oi.codegen" / "__pycache__" / "a.pyc").write_text("1")
    (tmp_path / "oi.runtime" / "kernels" / "a.py").write_text("2")
    assert key() in keys


def test_one_kind_of_machine_does_not_depend_on_the_kernels_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("oi.ir", "oi.codegen/cpu", "oi.codegen/cuda/tuning", "oi.runtime"):
        (tmp_path / folder).mkdir(parents=True)
    for schema in ("manifest.py", "cuda_library.py"):
        (tmp_path / "oi.runtime" / schema).write_text("1")
    monkeypatch.setattr(artifact_path, "_package_folder", lambda package: tmp_path / package)
    cpu, cuda = key(), key("cuda:sm_90")
    (tmp_path / "oi.codegen/cuda/tuning/table.json").write_text("1")
    assert key() == cpu
    assert key("cuda:sm_90") != cuda
    cuda = key("cuda:sm_90")
    (tmp_path / "oi.codegen/cpu/kernel.py").write_text("1")
    assert key() != cpu
    assert key("cuda:sm_90") == cuda


def test_cache_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "oi"
    assert default_path("c" * 64).parent == tmp_path / "oi" / "artifacts"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative is ignored")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "oi"


def test_without_a_compiler_an_artifact_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_path, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="--artifact"):
        default_path("c" * 64)


def test_imports_nothing_of_the_compiler() -> None:
    code = (
        "import sys; from oi.runtime.artifact_path import default_path; default_path('c' * 64); "
        "print([m for m in sys.modules if m.startswith(('oi.ir', 'oi.codegen', 'oi.models', 'tvm', 'torch'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
