"""Logits of compiled models equal those of Hugging Face's Qwen3ForCausalLM, for any config and any schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from oi.runtime.batch import Batch
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.manifest import Limits
from oi.runtime.step import StepRunner, open_runner
from tests.e2e.conftest import compile_checkpoint

YARN = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "original_max_position_embeddings": 64}

# hidden, layers, query heads, KV heads, head dim, intermediate, vocabulary, tied, rope, eps, dtype
CONFIGS = {
    "gqa-tied": (64, 2, 4, 2, 32, 160, 301, True, {"rope_type": "default", "rope_theta": 1e6}, 1e-6, torch.float32),
    "mha-untied": (48, 3, 3, 3, 16, 96, 128, False, {"rope_type": "default", "rope_theta": 1e4}, 1e-5, torch.float32),
    "mqa-yarn": (96, 1, 5, 1, 64, 100, 517, False, YARN, 1e-6, torch.float32),
    "wide-heads": (80, 2, 8, 4, 128, 208, 1000, True, YARN, 1e-6, torch.bfloat16),
    "bf16-untied": (
        128,
        4,
        6,
        2,
        64,
        320,
        777,
        False,
        {"rope_type": "default", "rope_theta": 1e6},
        1e-6,
        torch.bfloat16,
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Qwen3ForCausalLM, StepRunner]:
    """A random checkpoint in Hugging Face's float32 arithmetic, and compiled."""
    hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary, tied, rope, eps, dtype = CONFIGS[request.param]
    config = Qwen3Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        rope_parameters=rope,
        rms_norm_eps=eps,
        max_position_embeddings=256,
        initializer_range=0.1,
        dtype=dtype,
    )
    hf = Qwen3ForCausalLM(config)
    for name, parameter in hf.named_parameters():  # norms are ones when fresh: any mistake in them would not show
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    folder: Path = tmp_path_factory.mktemp(request.param)
    hf.to(dtype).save_pretrained(folder)
    artifact = compile_checkpoint(folder, folder / "artifact", Limits(256, 64, 1024))
    runner = open_runner(EngineSettings(str(artifact), str(folder), max_model_len=256, kv_bytes=64 << 20))
    return Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), runner


def logits_of(runner: StepRunner, prompts: list[np.ndarray], chunks: list[list[int]]) -> list[np.ndarray]:
    """Every position's logits [len, V] of each prompt, computed in steps: `chunks[step][prompt]` tokens each.

    Pages are given out in a random order, so that a kernel that ignores the page table fails.
    """
    page_size = runner.geometry.page_size
    free = iter(np.random.default_rng().permutation(runner.geometry.pages).tolist())
    tables = [[next(free) for _ in range(-(-len(p) // page_size))] for p in prompts]
    width = max(map(len, tables))
    done = [0] * len(prompts)
    out: list[list[np.ndarray]] = [[] for _ in prompts]
    for counts in chunks:
        active = [i for i, n in enumerate(counts) if n]
        starts = np.cumsum([0, *(counts[i] for i in active)])
        positions = [np.arange(done[i], done[i] + counts[i]) for i in active]
        slots = [
            np.array([tables[i][p // page_size] * page_size + p % page_size for p in ps])
            for i, ps in zip(active, positions, strict=True)
        ]
        flat = np.concatenate(positions)
        batch = Batch(
            tokens=np.concatenate([prompts[i][ps] for i, ps in zip(active, positions, strict=True)]).astype(np.int32),
            positions=flat.astype(np.int32),
            slots=np.concatenate(slots).astype(np.int32),
            query_starts=starts[:-1].astype(np.int32),
            query_lens=np.diff(starts).astype(np.int32),
            context_lens=np.array([done[i] + counts[i] for i in active], np.int32),
            page_table=np.array([tables[i] + [-1] * (width - len(tables[i])) for i in active], np.int32),
            rows=np.arange(len(flat), dtype=np.int32),
            sampling=None,
            want_logprobs=False,
        )
        runner.device.write("logits", np.full(len(flat) * runner.geometry.vocab_size, np.nan, np.float32))
        runner.finish(runner.start(batch))
        logits = runner.device.read("logits", {"R": len(flat)}).copy()
        for j, i in enumerate(active):
            out[i].append(logits[starts[j] : starts[j + 1]])
            done[i] += counts[i]
    return [np.concatenate(parts) for parts in out]


SCHEDULES = {
    "whole": lambda n: [[n, 0, 0], [0, n - 7, 0], [0, 0, 5]],
    "batched": lambda n: [[n - 20, 20, 5], [20, n - 27, 0]],
    "token by token": lambda n: [[1, 1, 1]] * 5 + [[1, 1, 0]] * (n - 12) + [[1, 0, 0]] * 7,
    "odd chunks, mixed with decode": lambda n: [[13, 1, 3], [1, 17, 1], [n - 14, 1, 1], [0, n - 26, 0]],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_logits_equal_hugging_face(model: tuple[Qwen3ForCausalLM, StepRunner], schedule: str) -> None:
    hf, runner = model
    rng = np.random.default_rng()
    length = int(rng.integers(40, 60))
    prompts = [rng.integers(runner.geometry.vocab_size, size=n) for n in (length, length - 7, 5)]
    for prompt, ours in zip(prompts, logits_of(runner, prompts, SCHEDULES[schedule](length)), strict=True):
        with torch.inference_mode():
            theirs = hf(torch.tensor(prompt[None])).logits[0].numpy()
        assert np.abs(ours - theirs).max() <= 1e-3 * np.ptp(theirs)
