"""Whole-path fixtures: checkpoints, compiled artifacts and engines, with the real kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from oi.codegen.compiler import compile_artifact
from oi.codegen.model_file import load_model_file
from oi.runtime.artifact_path import installed_model_file
from oi.runtime.checkpoint import bundled_folder, read_config
from oi.runtime.manifest import Limits


class Silent:
    """A compiler.Progress that tells nobody."""

    def phase(self, name: str, steps: int) -> None: ...

    def step(self, what: str) -> None: ...


def compile_checkpoint(checkpoint: Path, folder: Path, limits: Limits) -> Path:
    """Compile a checkpoint's config for this CPU into `folder`."""
    from oi.codegen.cpu.target import CpuTarget  # here, because the CUDA tests run where there is no tvm

    model_file = load_model_file(installed_model_file("qwen3.py"))
    compile_artifact(model_file, read_config(checkpoint), CpuTarget(), limits, folder, Silent())
    return folder


@pytest.fixture(scope="session")
def bundled() -> Path:
    return bundled_folder()


@pytest.fixture(scope="session")
def bundled_artifact(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_checkpoint(bundled, tmp_path_factory.mktemp("bundled") / "artifact", Limits(512, 64, 262144))
