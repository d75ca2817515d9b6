"""Write a checkpoint of random weights in the exact shape of a Qwen3, as a Hugging Face folder.

python bench/make_checkpoint.py 0.6B DIR [--dtype bf16|f32] [--layers N] [--shard-size GB] [--seed N]

Tensors are drawn and written a few million values at a time, so that any size fits into little memory. The
tokenizer is the bundled one's vocabulary, filled up to Qwen3's, with Qwen3's control tokens at their own ids.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

DType = Literal["bf16", "f32"]

BUNDLED = Path(__file__).parent.parent / "models" / "tiny"
STD = 0.02
CHUNK = 1 << 22
"""Values that one thread draws at a time."""
ITEMSIZE = {"bf16": 2, "f32": 4}
VOCAB_SIZE = 151_936
FIRST_ADDED = 151_643
CONTROL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
MARKUP = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]
ADDED = {token: FIRST_ADDED + i for i, token in enumerate([*CONTROL, *MARKUP])}
"""Qwen3's added tokens and their ids."""


@dataclass(frozen=True)
class Size:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    tied: bool
    kv_heads: int = 8
    head_dim: int = 128


SIZES = {
    "0.6B": Size(1024, 3072, 28, 16, tied=True),
    "1.7B": Size(2048, 6144, 28, 16, tied=True),
    "4B": Size(2560, 9728, 36, 32, tied=True),
    "8B": Size(4096, 12288, 36, 32, tied=False),
    "14B": Size(5120, 17408, 40, 40, tied=False),
    "32B": Size(5120, 25600, 64, 64, tied=False),
}

Shapes = dict[str, tuple[int, ...]]


def make_checkpoint(
    folder: Path,
    size: str,
    *,
    dtype: DType = "bf16",
    layers: int | None = None,
    shard_bytes: int = 5_000_000_000,
    seed: int = 0,
    tokenizer: Path = BUNDLED,
) -> None:
    """Write the checkpoint `size` (a key of SIZES) to `folder`; `layers` shortens it."""
    shape = SIZES[size]
    layers = layers or shape.layers
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config_of(shape, layers, dtype))
    _write_json(folder / "generation_config.json", _generation_config())
    _write_tokenizer(tokenizer, folder)
    _write_weights(folder, _shapes(shape, layers), dtype, shard_bytes, seed)


def config_of(shape: Size, layers: int, dtype: DType = "bf16") -> dict[str, Any]:
    """Its config.json."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ADDED["<|endoftext|>"],
        "eos_token_id": ADDED["<|im_end|>"],
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": STD,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": 40960,
        "max_window_layers": layers,
        "model_type": "qwen3",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": {"bf16": "bfloat16", "f32": "float32"}[dtype],
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCAB_SIZE,
    }


def _generation_config() -> dict[str, Any]:
    return {
        "bos_token_id": ADDED["<|endoftext|>"],
        "do_sample": True,
        "eos_token_id": [ADDED["<|im_end|>"], ADDED["<|endoftext|>"]],
        "pad_token_id": ADDED["<|endoftext|>"],
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
    }


def _write_tokenizer(source: Path, folder: Path) -> None:
    try:
        tokenizer = json.loads((source / "tokenizer.json").read_text())
        config = json.loads((source / "tokenizer_config.json").read_text())
    except FileNotFoundError as e:
        raise SystemExit(f"{e.filename} is missing; check out the bundled checkpoint, or name another one") from e
    vocab = {t: i for t, i in tokenizer["model"]["vocab"].items() if t not in ADDED}
    vocab |= {f"~{i}": i for i in range(len(vocab), FIRST_ADDED)}
    tokenizer["model"]["vocab"] = vocab
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {i: {"content": t, **flags, "special": t in CONTROL} for t, i in ADDED.items()}
    tokenizer["added_tokens"] = [{"id": i, **token} for i, token in added.items()]
    config |= {"added_tokens_decoder": {str(i): token for i, token in added.items()}, "model_max_length": 131072}
    config["additional_special_tokens"] = CONTROL[1:]
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", config)


def _shapes(shape: Size, layers: int) -> Shapes:
    """Every tensor of the checkpoint by name."""
    H, D = shape.hidden, shape.head_dim
    shapes: Shapes = {"model.embed_tokens.weight": (VOCAB_SIZE, H)}
    for layer in range(layers):
        tensors = {
            "input_layernorm": (H,),
            "self_attn.q_proj": (shape.heads * D, H),
            "self_attn.k_proj": (shape.kv_heads * D, H),
            "self_attn.v_proj": (shape.kv_heads * D, H),
            "self_attn.o_proj": (H, shape.heads * D),
            "self_attn.q_norm": (D,),
            "self_attn.k_norm": (D,),
            "post_attention_layernorm": (H,),
            "mlp.gate_proj": (shape.intermediate, H),
            "mlp.up_proj": (shape.intermediate, H),
            "mlp.down_proj": (H, shape.intermediate),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": s for name, s in tensors.items()}
    shapes["model.norm.weight"] = (H,)
    if not shape.tied:
        shapes["lm_head.weight"] = (VOCAB_SIZE, H)
    return shapes


def _write_weights(folder: Path, shapes: Shapes, dtype: DType, shard_bytes: int, seed: int) -> None:
    shards = _shards(shapes, shard_bytes // ITEMSIZE[dtype])
    names = ["model.safetensors"]
    total = sum(map(prod, shapes.values())) * ITEMSIZE[dtype]
    if len(shards) > 1:
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = progress.add_task(folder.name, total=total)
        for number, (name, shard) in enumerate(zip(names, shards, strict=True)):
            with (folder / name).open("wb") as file:
                for written in _write_shard(file, shard, dtype, (seed, number), pool):
                    progress.advance(task, written)


def _shards(shapes: Shapes, most: int) -> list[Shapes]:
    """The tensors in order, split where the next one would bring a shard over `most` values."""
    shards: list[Shapes] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and sum(map(prod, shards[-1].values())) + prod(shape) > most:
            shards.append({})
        shards[-1][name] = shape
    return shards


def _write_shard(
    file: BinaryIO, shapes: Shapes, dtype: DType, seed: tuple[int, ...], pool: ThreadPoolExecutor
) -> Iterator[int]:
    """Write one safetensors file; yields the bytes of each part as it is written."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + prod(shape) * ITEMSIZE[dtype]
        header[name] = {"dtype": dtype.upper(), "shape": shape, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    jobs = (
        (min(CHUNK, prod(shape) - start), len(shape) == 1, (*seed, tensor, start), dtype)
        for tensor, shape in enumerate(shapes.values())
        for start in range(0, prod(shape), CHUNK)
    )
    while group := list(islice(jobs, os.cpu_count())):
        for values in pool.map(_draw, *zip(*group, strict=True)):
            file.write(values.data)
            yield values.nbytes


def _draw(count: int, norm: bool, seed: tuple[int, ...], dtype: DType) -> np.ndarray[Any, Any]:
    """`count` normal values of standard deviation STD around 0, or around 1 for a norm's weight."""
    values = np.random.Generator(np.random.SFC64(seed)).standard_normal(count, dtype=np.float32)
    values *= STD
    values += float(norm)
    if dtype == "f32":
        return values
    bits = values.view(np.uint32)
    bits += 0x7FFF + (bits >> 16 & 1)  # to the nearest, ties to even
    return (bits >> 16).astype(np.uint16)


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=ITEMSIZE, default="bf16")
    parser.add_argument("--layers", type=int, help="fewer layers than the size has")
    parser.add_argument("--shard-size", type=float, default=5, metavar="GB", help="largest weight file")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    shard_bytes = int(a.shard_size * 1e9)
    make_checkpoint(a.folder, a.size, dtype=a.dtype, layers=a.layers, shard_bytes=shard_bytes, seed=a.seed)


if __name__ == "__main__":
    main()
