"""Random checkpoints have the shape that Hugging Face gives the config, whatever their dtype and shards."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import make_checkpoint
from bench.make_checkpoint import SIZES, VOCAB_SIZE, Size


@pytest.mark.parametrize(
    ("dtype", "tied", "shard_bytes"), [("bf16", True, 5_000_000_000), ("bf16", False, 4_000_000), ("f32", False, 9_000)]
)
def test_transformers_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, tied: bool, shard_bytes: int
) -> None:
    size = Size(hidden=8, intermediate=24, layers=3, heads=6, tied=tied, kv_heads=2, head_dim=4)
    monkeypatch.setitem(SIZES, "small", size)
    make_checkpoint.make_checkpoint(tmp_path, "small", dtype=dtype, shard_bytes=shard_bytes, layers=2)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert model.dtype == {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert len(model.model.layers) == 2
    weights = model.model.embed_tokens.weight.double()
    assert abs(weights.mean()) < 1e-3
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert abs(model.model.norm.weight.double().mean() - 1) < 0.1
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_bytes < 5_000_000_000)


def test_its_tokenizer_has_qwen3s_ids(tmp_path: Path) -> None:
    make_checkpoint._write_tokenizer(make_checkpoint.BUNDLED, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    bundled = AutoTokenizer.from_pretrained(make_checkpoint.BUNDLED)
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>", "</think>"]) == [151643, 151645, 151668]
    assert tokenizer("def f(x):")["input_ids"] == bundled("def f(x):")["input_ids"]
    assert tokenizer.decode(tokenizer("é<think>你")["input_ids"]) == "é<think>你"
    assert tokenizer.decode([100_000]) == "~100000"
    assert len(tokenizer) <= VOCAB_SIZE


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("0.6B", 596_049_920), ("1.7B", 1_720_574_976), ("4B", 4_022_468_096), ("8B", 8_190_735_360),
     ("14B", 14_768_307_200), ("32B", 32_762_123_264)],
)  # fmt: skip
def test_sizes_are_qwen3s(name: str, parameters: int) -> None:
    shapes = make_checkpoint._shapes(SIZES[name], SIZES[name].layers)
    assert sum(torch.Size(s).numel() for s in shapes.values()) == parameters


def test_the_index_names_every_tensor_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "small", Size(hidden=8, intermediate=24, layers=2, heads=2, tied=False, head_dim=4))
    make_checkpoint.make_checkpoint(tmp_path, "small", shard_bytes=3_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(make_checkpoint._shapes(SIZES["small"], 2))
    assert set(index["weight_map"].values()) == {f.name for f in tmp_path.glob("*.safetensors")}
