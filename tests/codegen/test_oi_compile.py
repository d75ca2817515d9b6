"""`oi-compile` from the command line to a manifest that the runtime reads, with a target that compiles nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from oi.codegen import cli
from oi.codegen.pipeline import PIPELINE
from oi.codegen.target import Library, Lowering, MissingKernel
from oi.ir.graph import Node
from oi.ir.parser import parse_graph
from oi.ir.verify import verify
from oi.runtime.artifact_path import cache_folder, default_path
from oi.runtime.checkpoint import config_hash
from oi.runtime.manifest import Manifest
from tests.codegen.fake_target import FakeTarget
from tests.codegen.random_model import random_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "_target", lambda name, limits: FakeTarget())
    monkeypatch.setattr("oi.runtime.target.host_gpu", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def config() -> dict[str, object]:
    return random_config(np.random.default_rng())


@pytest.fixture
def checkpoint(tmp_path: Path, config: dict[str, object]) -> Path:
    """Only config.json: compiling needs no weights."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def read(folder: Path) -> Manifest:
    return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest, strict=True)


def test_writes_the_manifest(
    tmp_path: Path, checkpoint: Path, config: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "artifact"
    assert cli.main([str(ROOT / "models/qwen3.py"), "--model", str(checkpoint), "-o", str(out)]) == 0
    manifest = read(out)
    assert manifest.model.architecture == "Qwen3ForCausalLM"
    assert manifest.model.config_sha256 == config_hash(config)
    assert (manifest.model.vocab_size, manifest.model.hidden_size) == (config["vocab_size"], config["hidden_size"])
    assert manifest.model.max_position == config["max_position_embeddings"]
    assert (manifest.kv.layers, manifest.kv.kv_heads) == (config["num_hidden_layers"], config["num_key_value_heads"])
    assert (manifest.kv.head_dim, manifest.kv.page_size, manifest.kv.dtype) == (config["head_dim"], 16, "f32")
    assert (manifest.limits.max_tokens, manifest.limits.max_sequences) == (512, 64)
    assert set(manifest.programs) == {"forward", "greedy", "sample", "log_probs"}
    assert set(manifest.files) == {"kernels.so", "support.so", "constants.bin"}
    assert (manifest.library, manifest.support, manifest.constants) == ("kernels.so", ["support.so"], "constants.bin")
    assert manifest.built_by["fake"] == "1"
    assert manifest.weights["layers.0.q_proj"] == "model.layers.0.self_attn.q_proj.weight"
    assert ("lm_head" in manifest.weights) != config["tie_word_embeddings"]
    *_, last = capsys.readouterr().out.splitlines()
    kernels = len((out / "kernels.so").read_text().splitlines())
    assert last.startswith(str(out))
    assert f"{kernels} kernels" in last
    assert "MiB" in last


def test_every_launch_names_buffers_and_kernels_that_exist(tmp_path: Path, checkpoint: Path) -> None:
    assert cli.main(["models/qwen3.py", "--model", str(checkpoint), "-o", str(tmp_path / "a")]) == 0
    manifest = read(tmp_path / "a")
    kernels = set((tmp_path / "a/kernels.so").read_text().splitlines())
    for program in manifest.programs.values():
        names = {arg for launch in program.launches for arg in launch.args if isinstance(arg, str)}
        assert names <= set(program.buffers)
        assert {v.kernel for launch in program.launches for v in launch.variants} <= kernels
        assert all(b.offset < manifest.arena_bytes for b in program.buffers.values() if b.kind == "arena")
        assert all(b.kind != "weight" or name in manifest.weights for name, b in program.buffers.items())
    forward = manifest.programs["forward"].buffers
    assert {name for name, b in forward.items() if b.kind == "io"} == {
        "tokens",
        "positions",
        "slots",
        "query_starts",
        "query_lens",
        "context_lens",
        "page_table",
        "rows",
        "logits",
    }
    assert forward["kv"].kind == "state"


def test_parameters_count_a_tied_head_once(tmp_path: Path, checkpoint: Path, config: dict[str, int]) -> None:
    cli.main(["models/qwen3.py", "--model", str(checkpoint), "-o", str(tmp_path / "a")])
    c, d = config, config["head_dim"]
    attention = d * c["hidden_size"] * 2 * (c["num_attention_heads"] + c["num_key_value_heads"]) + 2 * d
    layer = attention + 3 * c["hidden_size"] * c["intermediate_size"] + 2 * c["hidden_size"]
    heads = 1 if c["tie_word_embeddings"] else 2
    expected = c["num_hidden_layers"] * layer + c["hidden_size"] * (1 + heads * c["vocab_size"])
    assert read(tmp_path / "a").model.parameters == expected


def test_the_model_file_is_found_from_anywhere(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert cli.main(["models/qwen3.py", "--model", str(checkpoint), "-o", "a"]) == 0
    assert read(elsewhere / "a").kv.page_size == 16


def test_the_default_place_is_where_the_runtime_looks(checkpoint: Path, config: dict[str, object]) -> None:
    assert cli.main(["--model", str(checkpoint)]) == 0
    folder = default_path(config_hash(config))
    assert folder.parent == cache_folder() / "artifacts"
    assert read(folder).model.config_sha256 == config_hash(config)


def test_other_limits_are_another_artifact(checkpoint: Path, config: dict[str, object]) -> None:
    assert cli.main(["--model", str(checkpoint), "--max-tokens", "64", "--max-sequences", "8"]) == 0
    folder = default_path(config_hash(config), limits=(64, 8))
    assert read(folder).limits.max_tokens == 64
    assert not default_path(config_hash(config)).exists()


def test_a_gpu_is_compiled_for_by_default_where_one_is(
    checkpoint: Path, config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("oi.runtime.target.host_gpu", lambda: "sm_90")
    monkeypatch.setattr(cli, "_target", lambda name, limits: asked.append(name) or FakeTarget())
    assert cli.main(["--model", str(checkpoint)]) == 0
    assert cli.main(["--model", str(checkpoint), "--target", "auto", "--max-sequences", "8"]) == 0
    assert cli.main(["--model", str(checkpoint), "--target", "cpu"]) == 0
    assert asked == ["cuda:sm_90", "cuda:sm_90", "cpu"]
    limits = read(default_path(config_hash(config), target="cuda:sm_90")).limits
    assert (limits.max_tokens, limits.max_sequences) == (4096, 256)
    assert read(default_path(config_hash(config), (4096, 8), target="cuda:sm_90")).limits.max_sequences == 8
    assert read(default_path(config_hash(config), target="cpu")).limits.max_tokens == 512


def test_a_gpu_without_kernels_is_left_out_visibly(
    checkpoint: Path, config: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("oi.runtime.target.host_gpu", lambda: "sm_100")
    assert cli.main(["--model", str(checkpoint)]) == 0
    assert "oi-compile: note: this GPU is sm_100" in capsys.readouterr().err
    assert read(default_path(config_hash(config), target="cpu")).limits.max_tokens == 512
    assert cli.main(["--model", str(checkpoint), "--target", "cuda:sm_100"]) == 1
    assert "no kernels for 'sm_100'; choose --target from cuda:sm_80" in capsys.readouterr().err


def test_notes_of_the_target_are_shown(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Noting(FakeTarget):
        def write_library(self, *arguments: Any) -> Library:
            return replace(super().write_library(*arguments), notes=("nobody measured this",))

    monkeypatch.setattr(cli, "_target", lambda name, limits: Noting())
    assert cli.main(["--model", str(checkpoint), "-o", str(tmp_path / "a")]) == 0
    assert "oi-compile: note: nobody measured this" in capsys.readouterr().err


def test_dump_ir_writes_every_phase_as_text_and_drawing(tmp_path: Path, checkpoint: Path) -> None:
    dump = tmp_path / "ir"
    assert cli.main(["--model", str(checkpoint), "-o", str(tmp_path / "a"), "--dump-ir", str(dump)]) == 0
    phases = ["00-input", *(f"{i:02}-{step.name}" for i, step in enumerate(PIPELINE, 1))]
    for phase in phases:
        for graph in ("forward", "greedy", "sample", "log_probs"):
            verify(parse_graph((dump / f"{phase}.{graph}.ir").read_text()))
            assert ElementTree.parse(dump / f"{phase}.{graph}.svg").getroot().tag.endswith("svg")
    forward = (dump / "08-memory-plan.forward.txt").read_text()
    assert "arena" in forward
    assert "qkv_norm_rope_write(" in forward
    ElementTree.parse(dump / "08-memory-plan.forward.svg")
    page = (dump / "index.html").read_text()
    assert all(f"{phase}.forward.svg" in page for phase in phases)


def test_a_missing_kernel_names_op_shapes_and_mend(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Lacking(FakeTarget):
        def lower(self, node: Node) -> Lowering:
            raise MissingKernel(node, "toaster", "add a kernel to codegen/toaster")

    monkeypatch.setattr(cli, "_target", lambda name, limits: Lacking())
    assert cli.main(["--model", str(checkpoint), "-o", str(tmp_path / "a")]) == 1
    error = capsys.readouterr().err
    assert "toaster has no kernel for rope_angles(i32[T], f32[" in error
    assert "add a kernel to codegen/toaster" in error
    assert not (tmp_path / "a").exists()


BAD_MODEL_FILES = {
    "def build(config, activations): ...": "must define parse_config, build and checkpoint_names",
    "raise OSError('boom')": "OSError: boom",
    "def (": "SyntaxError",
}


@pytest.mark.parametrize("text", BAD_MODEL_FILES)
def test_a_bad_model_file_is_a_typed_error(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "model.py").write_text(text)
    assert cli.main([str(tmp_path / "model.py"), "--model", str(checkpoint)]) == 1
    assert BAD_MODEL_FILES[text] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models/nowhere.py"], "no model file 'models/nowhere.py'"),
        (["--model", "./nowhere"], "no checkpoint folder at './nowhere'"),
    ],
)
def test_errors_say_the_mend(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("oi-compile: error: ")
    assert message in error


def test_another_architecture_is_refused(
    tmp_path: Path, config: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama", "architectures": ["Llama"]}))
    assert cli.main(["--model", str(tmp_path)]) == 1
    assert "lama" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--max-tokens", "0"], ["--target", "tpu"], ["--nonsense"]])
def test_bad_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2


def test_a_model_file_leaves_no_trace_in_the_installed_one(checkpoint: Path, tmp_path: Path) -> None:
    """A file of the same name as oi's own is loaded under a name of its own."""
    copy = tmp_path / "qwen3.py"
    copy.write_text((ROOT / "models/qwen3.py").read_text().replace("PAGE_SIZE = 16", "PAGE_SIZE = 32"))
    assert cli.main([str(copy), "--model", str(checkpoint), "-o", str(tmp_path / "a")]) == 0
    assert read(tmp_path / "a").kv.page_size == 32
    installed = sys.modules.get("oi.models.qwen3")
    assert installed is None or installed.PAGE_SIZE == 16
