"""The products of every Qwen3 size and of the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import oi.models
from oi.codegen.cuda.kernels.gemm import Gemm

__all__ = ["MODELS", "products"]

TINY = json.loads(Path(oi.models.__path__[0], "tiny", "config.json").read_text())
VOCABULARY = 151936
# hidden, intermediate, query heads, KV heads, head dim, vocabulary
MODELS = {
    "0.6B": (1024, 3072, 16, 8, 128, VOCABULARY),
    "1.7B": (2048, 6144, 16, 8, 128, VOCABULARY),
    "4B": (2560, 9728, 32, 8, 128, VOCABULARY),
    "8B": (4096, 12288, 32, 8, 128, VOCABULARY),
    "14B": (5120, 17408, 40, 8, 128, VOCABULARY),
    "32B": (5120, 25600, 64, 8, 128, VOCABULARY),
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
