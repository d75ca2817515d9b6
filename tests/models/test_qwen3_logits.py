"""The graph, run by the reference in float64, gives the logits of Hugging Face's Qwen3ForCausalLM in float32.

Random configs vary every dimension; random schedules mix sequences, chunk sizes, pages, padding and idle slots.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from oi.ir.graph import Graph
from oi.ir.interpreter import run
from oi.ir.types import DType
from oi.models import qwen3

B = qwen3.PAGE_SIZE
Arrays = dict[str, np.ndarray[Any, Any]]


def random_config(rng: np.random.Generator) -> Qwen3Config:
    kv_heads = int(rng.integers(1, 4))
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(10 ** rng.uniform(2, 7))}
    if rng.random() < 0.5:
        rope |= {"rope_type": "yarn", "factor": float(rng.uniform(1.5, 8)), "truncate": bool(rng.integers(2))}
        rope |= {"original_max_position_embeddings": int(rng.integers(16, 100))}
    return Qwen3Config(
        vocab_size=int(rng.integers(20, 200)),
        hidden_size=int(rng.integers(8, 80)),
        intermediate_size=int(rng.integers(8, 120)),
        num_hidden_layers=int(rng.integers(1, 5)),
        num_attention_heads=kv_heads * int(rng.integers(1, 5)),
        num_key_value_heads=kv_heads,
        head_dim=2 * int(rng.integers(2, 20)),
        rms_norm_eps=float(10 ** rng.uniform(-7, -2)),
        tie_word_embeddings=bool(rng.integers(2)),
        rope_parameters=rope,
        max_position_embeddings=256,
        initializer_range=0.3,
        dtype="float32",
    )


@pytest.fixture(params=range(12))
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


@dataclass
class Sequence:
    tokens: np.ndarray[Any, Any]
    pages: np.ndarray[Any, Any]
    done: int = 0


@pytest.fixture
def model(rng: np.random.Generator) -> Qwen3ForCausalLM:
    torch.manual_seed(int(rng.integers(2**31)))
    model = Qwen3ForCausalLM(random_config(rng)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # all ones by default, which would hide a weight that is not applied
                parameter.uniform_(0.5, 1.5)
    return model


def load(model: Qwen3ForCausalLM) -> tuple[qwen3.Config, Graph, Arrays]:
    config = qwen3.parse_config(model.config.to_dict())
    tensors = model.state_dict()
    weights = {value: tensors[name].numpy() for value, name in qwen3.checkpoint_names(config).items()}
    return config, qwen3.build(config, DType.F32).graphs["forward"], weights


def step_inputs(rng: np.random.Generator, chunks: list[tuple[Sequence, int]]) -> Arrays:
    """Sequences in order with random gaps of padding between them, and an idle sequence at the end."""
    tokens, positions, slots, starts, rows = [], [], [], [], []
    for sequence, count in chunks:
        for _ in range(rng.integers(0, 3)):
            tokens, positions, slots = [*tokens, 0], [*positions, 0], [*slots, -1]
        starts.append(len(tokens))
        for position in range(sequence.done, sequence.done + count):
            rows.append(len(tokens))
            tokens.append(sequence.tokens[position])
            positions.append(position)
            slots.append(sequence.pages[position // B] * B + position % B)
    pages = np.full((len(chunks) + 1, max(len(s.pages) for s, _ in chunks)), 0)
    for table, (sequence, _) in zip(pages, chunks, strict=False):
        table[: len(sequence.pages)] = sequence.pages
    inputs = {
        "tokens": tokens,
        "positions": positions,
        "slots": slots,
        "query_starts": [*starts, 0],
        "query_lens": [*(count for _, count in chunks), 0],
        "context_lens": [*(sequence.done + count for sequence, count in chunks), 0],
        "page_table": pages,
        "rows": rows,
    }
    return {name: np.array(array, np.int32) for name, array in inputs.items()}


def test_logits_in_any_schedule(rng: np.random.Generator, model: Qwen3ForCausalLM) -> None:
    config, graph, weights = load(model)
    lengths = rng.integers(1, 70, 4)
    free = rng.permutation(sum(-(-length // B) for length in lengths) + 2)
    sequences, used = [], 0
    for length in lengths:
        pages = free[used : used + -(-length // B)]
        used += len(pages)
        sequences.append(Sequence(rng.integers(0, config.vocab_size, length), pages))
    kv = np.full((len(free), config.layers, 2, config.kv_heads, B, config.head_dim), np.nan)
    found: list[list[np.ndarray[Any, Any]]] = [[] for _ in sequences]

    while waiting := [i for i, s in enumerate(sequences) if s.done < len(s.tokens)]:
        chosen = rng.permutation(waiting)[: rng.integers(1, 4)]
        counts = {int(i): int(rng.integers(1, len(sequences[i].tokens) - sequences[i].done + 1)) for i in chosen}
        chunks = [(sequences[i], count) for i, count in counts.items()]
        outputs = run(graph, {**step_inputs(rng, chunks), **weights, "kv": kv})
        kv, row = outputs[graph.outputs[1].name], 0
        for i, count in counts.items():
            found[i].extend(outputs["logits"][row : row + count])
            row += count
            sequences[i].done += count

    for sequence, logits in zip(sequences, found, strict=True):
        with torch.no_grad():
            expected = model(torch.from_numpy(sequence.tokens)[None]).logits[0].numpy()
        assert np.isfinite(logits).all()
        assert np.abs(np.array(logits) - expected).max() < 1e-4 * np.ptp(expected)


def test_the_graph_is_nearly_exact_where_hugging_face_computes_in_float64() -> None:
    rng = np.random.default_rng(99)
    torch.manual_seed(99)
    model = Qwen3ForCausalLM(random_config(rng)).eval()
    config, graph, weights = load(model)
    model = model.double()
    length = 6  # angles are float32 in Hugging Face, so that the bound grows with the position
    sequence = Sequence(rng.integers(0, config.vocab_size, length), np.array([0]))
    kv = np.full((1, config.layers, 2, config.kv_heads, B, config.head_dim), np.nan)
    found = run(graph, {**step_inputs(rng, [(sequence, length)]), **weights, "kv": kv})["logits"]
    with torch.no_grad():
        expected = model(torch.from_numpy(sequence.tokens)[None]).logits[0].numpy()
    assert np.abs(found - expected).max() < 1e-6 * np.ptp(expected)
