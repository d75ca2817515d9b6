"""Hugging Face transformers on the CPU."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


class HuggingFace:
    def __init__(self, folder: Path, dtype: torch.dtype, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self._vocabulary = self._model.config.vocab_size

    @torch.inference_mode()
    def prefill(self, tokens: int) -> float:
        prompt = torch.randint(self._vocabulary, (1, tokens))
        start = time.perf_counter()
        out = self._model(prompt, use_cache=True, logits_to_keep=1)
        self._next, self._cache = out.logits[:, -1:].argmax(-1), out.past_key_values
        return time.perf_counter() - start

    @torch.inference_mode()
    def decode(self, tokens: int) -> float:
        start = time.perf_counter()
        for _ in range(tokens):
            out = self._model(self._next, past_key_values=self._cache, use_cache=True)
            self._next = out.logits[:, -1:].argmax(-1)
        return time.perf_counter() - start


def load(folder: Path, dtype: str, threads: int) -> HuggingFace:
    return HuggingFace(folder, {"f32": torch.float32, "bf16": torch.bfloat16}[dtype], threads)
