"""Whole artifacts for GPUs, compiled without one (and without torch), and gone through call by call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

pytest.importorskip("triton")

from bench.make_checkpoint import SIZES, config_of
from oi.runtime.cuda_library import CudaLibrary, Operand
from oi.runtime.manifest import Manifest
from tests.codegen.cuda_replay import replay

TINY = Path(__file__).parents[2] / "models" / "tiny"
# oi-compile, on a machine without torch
COMPILE = """
import sys
sys.modules["torch"] = None
from oi.codegen.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def compiled(folder: Path, model: Path, *arguments: str) -> Path:
    script = folder / "compile.py"
    script.write_text(COMPILE)
    command = [sys.executable, str(script), "--model", str(model), "-o", str(folder / "artifact"), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "artifact"


def library(artifact: Path) -> CudaLibrary:
    return msgspec.json.decode((artifact / "library.json").read_bytes(), type=CudaLibrary)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_the_bundled_model(tmp_path: Path, arch: str) -> None:
    limits = ("--max-tokens", "64", "--max-sequences", "4")
    artifact = compiled(tmp_path, TINY, "--target", f"cuda:{arch}", *limits)
    done = replay(artifact)
    assert done.calls > done.launches > 0
    made = library(artifact)
    assert made.buckets.decode_rows == made.buckets.rows == [1, 2, 4]
    assert made.buckets.tokens == [16, 32, 64]
    assert made.defaults, "nobody tunes the bundled model's products"
    alone = {made.word_copy.kernel, *(name for name, kernel in made.kernels.items() if "plan" in kernel.entry)}
    assert all(kernel.pdl == (arch == "sm_90") for name, kernel in made.kernels.items() if name not in alone)
    manifest = msgspec.json.decode((artifact / "manifest.json").read_bytes(), type=Manifest)
    assert manifest.target.arch == arch
    assert {kernel.file for kernel in made.kernels.values()} <= manifest.files.keys()
    assert "triton" in manifest.built_by
    assert not [p for p in artifact.rglob("*.cubin") if str(TINY.parent.parent).encode() in p.read_bytes()]

    _replay_would_fail(artifact, made)


def _replay_would_fail(artifact: Path, made: CudaLibrary) -> None:
    symbol, recipe = next((s, r) for s, r in made.recipes.items() if s.startswith("attention_") and r.prologue)
    call = recipe.calls[0]
    short = replace(call, params=call.params[:-1])
    far = replace(call, params=[Operand(99) if isinstance(p, Operand) else p for p in call.params])
    for broken in (
        replace(made, scratch={name: size - 4 for name, size in made.scratch.items()}),
        replace(made, recipes={**made.recipes, symbol: replace(recipe, calls=[short])}),
        replace(made, recipes={**made.recipes, symbol: replace(recipe, calls=[far])}),
        replace(made, kernels={n: replace(k, threads=2 * k.threads) for n, k in made.kernels.items()}),
    ):
        with pytest.raises((AssertionError, IndexError)):
            replay(artifact, broken)


@pytest.mark.slow
def test_qwen3_4b(tmp_path: Path) -> None:
    """From its config.json alone, with the default limits: what a server of the 4B model runs."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config_of(SIZES["4B"], SIZES["4B"].layers)))
    artifact = compiled(tmp_path, model, "--target", "cuda:sm_90")
    done = replay(artifact)
    made = library(artifact)
    print(f"{len(made.kernels)} kernels, {len(made.recipes)} recipes, {done.calls} calls in all graphs")
    entries = {kernel.entry for kernel in made.kernels.values()}
    assert {"gemm_skinny", "gemm_even", "gemm_prefill", "attention_prefill_hopper", "sample"} <= entries
    assert (made.buckets.decode_rows[-1], made.buckets.tokens[-1]) == (256, 4096)
