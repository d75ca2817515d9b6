"""What a checkpoint says about generating: its end-of-sequence tokens and its default sampling.

As vLLM does, the sampling values of `generation_config.json` are the defaults of requests that do not set them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oi.runtime.errors import CheckpointError

__all__ = ["GenerationConfig"]

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class GenerationConfig:
    eos_ids: tuple[int, ...]
    """Generation ends after any of these."""
    sampling: dict[str, float] = field(default_factory=dict)
    """Defaults by the field names of `messages.SamplingParams`."""

    @staticmethod
    def load(folder: Path, token_ids: dict[str, int]) -> GenerationConfig:
        """From generation_config.json, else config.json, and tokenizer_config.json's `eos_token`.

        `token_ids` are the tokenizer's special tokens. Raises CheckpointError where a file is damaged.
        """
        generation = _read(folder / "generation_config.json")
        eos = generation.get("eos_token_id", _read(folder / "config.json").get("eos_token_id"))
        ids = [eos] if isinstance(eos, int) else list(eos or [])
        token = _read(folder / "tokenizer_config.json").get("eos_token")
        content = token.get("content") if isinstance(token, dict) else token
        if content in token_ids:
            ids.append(token_ids[content])
        sampling = {name: generation[name] for name in _SAMPLING if generation.get(name) is not None}
        if not all(isinstance(id, int) for id in ids) or not all(isinstance(v, int | float) for v in sampling.values()):
            raise CheckpointError(f"{folder}/generation_config.json holds values that are not numbers")
        return GenerationConfig(tuple(dict.fromkeys(ids)), sampling)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as e:
        raise CheckpointError(f"{path} is not valid JSON: {e}") from e
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return value
