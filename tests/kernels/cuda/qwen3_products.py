"""The products of every Qwen3 size and of the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import oi.models
from bench.make_checkpoint import SIZES, VOCAB_SIZE
from oi.codegen.cuda.kernels.gemm import Gemm

__all__ = ["MODELS", "products"]

TINY = json.loads(Path(oi.models.__path__[0], "tiny", "config.json").read_text())
# hidden, intermediate, query heads, KV heads, head dim, vocabulary
MODELS = {
    **{
        name: (size.hidden, size.intermediate, size.heads, size.kv_heads, size.head_dim, VOCAB_SIZE)
        for name, size in SIZES.items()
    },
    "tiny": tuple(
        TINY[name]
        for name in (
            *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
            "vocab_size",
        )
    ),
}


def products(model: str) -> list[Gemm]:
    """qkv, o, gate and up, down, logits."""
    hidden, intermediate, q_heads, kv_heads, head_dim, vocabulary = MODELS[model]
    return [
        Gemm((q_heads + 2 * kv_heads) * head_dim, hidden),
        Gemm(hidden, q_heads * head_dim),
        Gemm(intermediate, hidden, swiglu=True),
        Gemm(hidden, intermediate),
        Gemm(vocabulary, hidden, f32=True),
    ]
