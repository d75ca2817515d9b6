"""Small Qwen3 models of random shapes, and random steps to run them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oi.ir.graph import Graph, InputKind
from oi.ir.types import Sym
from oi.models.qwen3 import PAGE_SIZE

__all__ = ["random_config", "random_forward_inputs", "random_sample_inputs"]

Array = np.ndarray[Any, np.dtype[Any]]


def random_config(rng: np.random.Generator) -> dict[str, Any]:
    """A `config.json` in which every dimension differs from the others' usual ratios."""
    kv_heads = int(rng.integers(1, 4))
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": int(rng.integers(20, 60)),
        "hidden_size": int(rng.integers(3, 9)) * 4,
        "intermediate_size": int(rng.integers(5, 20)) * 2,
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": kv_heads * int(rng.integers(1, 4)),
        "num_key_value_heads": kv_heads,
        "head_dim": int(rng.integers(1, 5)) * 4,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "tie_word_embeddings": bool(rng.integers(2)),
        "hidden_act": "silu",
        "attention_bias": False,
        "dtype": str(rng.choice(["float32", "bfloat16"])),
    }


@dataclass(frozen=True)
class _Ragged:
    """Sequences of a step: what each has cached, and how many tokens it adds."""

    cached: Array
    added: Array

    @property
    def context(self) -> Array:
        return self.cached + self.added


def random_forward_inputs(graph: Graph, rng: np.random.Generator, padding: int = 0) -> dict[str, Array]:
    """All inputs of `forward`: a mixture of decode rows and chunks over a cache in shuffled pages, random weights.

    The last `padding` tokens belong to no sequence and are not sampled.
    """
    sequences = int(rng.integers(1, 5))
    ragged = _Ragged(rng.integers(0, 2 * PAGE_SIZE, sequences), rng.integers(1, 6, sequences))
    tokens = int(ragged.added.sum()) + padding
    starts = np.cumsum(ragged.added) - ragged.added
    owned = -(-ragged.context // PAGE_SIZE)
    page_table, pages = _page_table(owned, rng)
    positions, slots = np.zeros(tokens, np.int32), np.full(tokens, -1, np.int32)
    for s in range(sequences):
        at = np.arange(ragged.cached[s], ragged.context[s])
        rows = slice(starts[s], starts[s] + ragged.added[s])
        positions[rows] = at
        slots[rows] = page_table[s][at // PAGE_SIZE] * PAGE_SIZE + at % PAGE_SIZE
    step = {
        "tokens": rng.integers(0, _dim(graph, "embed_tokens", 0), tokens),
        "positions": positions,
        "slots": slots,
        "query_starts": starts,
        "query_lens": ragged.added,
        "context_lens": ragged.context,
        "page_table": page_table,
        "rows": rng.permutation(tokens - padding)[: int(rng.integers(1, tokens - padding + 1))],
    }
    inputs = {name: array.astype(np.int32) for name, array in step.items()}
    for value, kind in graph.inputs.items():
        if kind is not InputKind.INPUT:
            shape = tuple(pages if isinstance(d, Sym) else d for d in value.type.shape)
            inputs[value.name] = rng.standard_normal(shape).astype(np.float32)
    return inputs


def random_sample_inputs(graph: Graph, rng: np.random.Generator) -> dict[str, Array]:
    """All inputs of `sample`, `greedy` or `log_probs`."""
    rows, vocab = int(rng.integers(1, 6)), _dim(graph, "logits", 1)
    lens = rng.integers(0, 4, rows)
    edits = int(lens.sum())
    tokens = [rng.choice(vocab, size=n, replace=False) for n in lens]
    given = {
        "logits": rng.standard_normal((rows, vocab)),
        "sampled": rng.integers(0, vocab, rows),
        "edit_starts": np.cumsum(lens) - lens,
        "edit_lens": lens,
        "edit_tokens": np.concatenate(tokens),
        "edit_scale": rng.uniform(0.5, 2, edits),
        "edit_add": rng.standard_normal(edits),
        "temperature": rng.choice([0.0, 0.7, 1.3], rows),
        "top_k": rng.integers(0, 5, rows),
        "top_p": rng.uniform(0.3, 1, rows),
        "min_p": rng.uniform(0, 0.3, rows),
        "uniform": rng.uniform(0, 1, rows),
    }
    dtypes = {value.name: np.float32 if value.type.dtype.is_float else np.int32 for value in graph.inputs}
    return {name: given[name].astype(dtype) for name, dtype in dtypes.items()}


def _page_table(owned: Array, rng: np.random.Generator) -> tuple[Array, int]:
    """Distinct pages in random order, unused entries out of range; and the pages of the pool."""
    pages = int(owned.sum()) + 2
    free = rng.permutation(pages)
    table = np.full((len(owned), int(owned.max())), 2**30, np.int32)
    for s, count in enumerate(owned):
        table[s, :count], free = free[:count], free[count:]
    return table, pages


def _dim(graph: Graph, name: str, axis: int) -> int:
    (size,) = (value.type.shape[axis] for value in graph.inputs if value.name == name)
    assert isinstance(size, int)
    return size
