"""A random small Qwen3, compiled by the real CPU target and run by the real runtime, equals the interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from oi.codegen.compiler import compile_artifact
from oi.codegen.cpu.target import CpuTarget
from oi.codegen.model_file import load_model_file
from oi.ir.graph import Graph
from oi.ir.interpreter import run
from oi.ir.types import DType
from oi.models import qwen3
from oi.runtime.artifact import open_artifact
from oi.runtime.artifact_path import installed_model_file
from oi.runtime.checkpoint import MappedTensor, config_hash
from oi.runtime.device.cpu import CpuDevice
from oi.runtime.manifest import Limits, Manifest
from tests.codegen.random_model import random_config, random_forward_inputs, random_sample_inputs

Array = np.ndarray[Any, np.dtype[Any]]
CAPACITY = {"T": 40, "S": 24, "R": 24, "E": 64, "P": 8, "N": 64}


@dataclass(frozen=True)
class Compiled:
    seed: int
    config: dict[str, Any]
    folder: Path
    graphs: dict[str, Graph]


class Silent:
    def phase(self, name: str, steps: int) -> None: ...

    def step(self, what: str) -> None: ...


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    seed = np.random.SeedSequence().entropy
    assert isinstance(seed, int)
    config = {**random_config(np.random.default_rng(seed)), "dtype": "float32"}
    folder = tmp_path_factory.mktemp("compiled") / "artifact"
    model_file = load_model_file(installed_model_file("qwen3.py"))
    compile_artifact(model_file, config, CpuTarget(), Limits(40, 24, 64), folder, Silent())
    module = qwen3.build(qwen3.parse_config(config), DType.F32)
    return Compiled(seed, config, folder, dict(module.graphs))


class Weights:
    """A checkpoint that is held in memory."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self.tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}

    def tensor(self, name: str) -> MappedTensor:
        array = self.tensors[name]
        return MappedTensor("f32", array.shape, array.ctypes.data, array.view(np.uint8).reshape(-1))


def test_the_manifest_reads_back_strictly(compiled: Compiled) -> None:
    text = (compiled.folder / "manifest.json").read_bytes()
    manifest = msgspec.json.decode(text, type=Manifest, strict=True)
    assert manifest == open_artifact(compiled.folder).manifest
    assert manifest.model.config_sha256 == config_hash(compiled.config)
    assert {"oi", "tvm", "llvm"} <= set(manifest.built_by)
    assert not [path for path in compiled.folder.rglob("*") if path.suffix in (".py", ".pyc", ".pkl", ".pickle")]


def test_runs_as_the_interpreter_does_whatever_the_memory_held(compiled: Compiled) -> None:
    rng = np.random.default_rng()
    forward = compiled.graphs["forward"]
    inputs = random_forward_inputs(forward, rng)
    dims = {"T": len(inputs["tokens"]), "S": len(inputs["query_lens"]), "R": len(inputs["rows"])}
    dims |= {"P": inputs["page_table"].shape[1], "N": len(inputs["kv"]), "E": 0}
    artifact = open_artifact(compiled.folder)
    names = artifact.manifest.weights
    device = CpuDevice(
        artifact,
        Weights({tensor: inputs[name] for name, tensor in names.items()}),  # type: ignore[arg-type]
        CAPACITY,
        threads=2,
    )
    device._arena[:] = 0xFF  # NaN
    for name, array in inputs.items():
        if name not in names:
            device.write(name, array)
    device.write("logits", np.full(CAPACITY["R"] * compiled.config["vocab_size"], np.nan, np.float32))
    device.run("forward", dims)

    expected = run(forward, inputs)
    scale = np.abs(expected["logits"]).max()
    message = f"config of seed {compiled.seed}"
    np.testing.assert_allclose(device.read("logits", dims), expected["logits"], atol=2e-5 * scale, err_msg=message)
    kv = expected[forward.outputs[1].name]
    np.testing.assert_allclose(device.read("kv", dims), kv, atol=2e-5 * np.abs(kv).max(), err_msg=message)

    device.run("greedy", dims)
    np.testing.assert_array_equal(device.read("sampled", dims), device.read("logits", dims).argmax(-1))


def test_samples_as_the_interpreter_does(compiled: Compiled) -> None:
    inputs = random_sample_inputs(compiled.graphs["sample"], np.random.default_rng())
    rows, edits = len(inputs["logits"]), len(inputs["edit_tokens"])
    artifact = open_artifact(compiled.folder)
    shapes = {value.name: value.type.shape for value in compiled.graphs["forward"].inputs}
    weights = {tensor: np.zeros(shapes[name]) for name, tensor in artifact.manifest.weights.items()}
    device = CpuDevice(artifact, Weights(weights), CAPACITY, threads=2)  # type: ignore[arg-type]
    for name, array in inputs.items():
        device.write(name, array)
    dims = {**CAPACITY, "R": rows, "E": edits}
    device.run("sample", dims)
    expected = run(compiled.graphs["sample"], inputs, np.float32)["sampled"]
    np.testing.assert_array_equal(device.read("sampled", dims), expected)
