"""How far a bf16 checkpoint's log-probabilities are from Hugging Face's, on the bundled model and real text.

oi's CPU target streams bf16 weights and computes in float32, so it is held to Hugging Face's float32 arithmetic on
the same weights; Hugging Face's own bf16 arithmetic is the yardstick for what rounding costs.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from oi.runtime.engine_settings import EngineSettings
from oi.runtime.step import open_runner
from tests.e2e.test_logits import logits_of

TOKENS = 256
CHUNK = 64  # as many rows as a step can sample


def log_probs(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    peak = wide.max(-1, keepdims=True)
    return wide - peak - np.log(np.exp(wide - peak).sum(-1, keepdims=True))


def hugging_face(folder: Path, ids: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.inference_mode():
        return log_probs(model(torch.tensor(ids[None])).logits[0].float().numpy())


@pytest.mark.parametrize("text", [inspect.getsource(textwrap), (__doc__ or "") * 8])
def test_log_probs_of_bf16_weights(bundled: Path, bundled_artifact: Path, text: str) -> None:
    ids = np.array(Tokenizer.from_file(str(bundled / "tokenizer.json")).encode(text).ids[:TOKENS])
    assert len(ids) == TOKENS
    runner = open_runner(EngineSettings(str(bundled_artifact), str(bundled), max_model_len=512))
    ours = log_probs(logits_of(runner, [ids], [[CHUNK]] * (TOKENS // CHUNK))[0])
    exact = hugging_face(bundled, ids, torch.float32)
    rounded = hugging_face(bundled, ids, torch.bfloat16)

    error, yardstick = np.abs(ours - exact), np.abs(rounded - exact)
    print(f"oi: mean {error.mean():.2e}, p99 {np.quantile(error, 0.99):.2e}; ", end="")
    print(f"HF bf16: mean {yardstick.mean():.2e}, p99 {np.quantile(yardstick, 0.99):.2e}")
    assert error.mean() < 1e-5
    assert np.quantile(error, 0.99) < 5e-5
    assert error.mean() < yardstick.mean() / 1000
    assert (ours.argmax(-1) == exact.argmax(-1)).all()
