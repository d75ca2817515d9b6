"""The launch of attention on a GPU of known kind: from the table of what was measured, else a stated default."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from oi.codegen.cuda.kernels.attention import Decode, Prefill

__all__ = ["choose_decode", "choose_prefill"]


@functools.cache
def _table(target: str) -> dict[str, Any]:
    path = resources.files("oi.codegen.cuda.tuning") / f"attention_{target}.json"
    table: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return table


def _entry(target: str, kind: str, key: str, size: int) -> dict[str, Any] | None:
    """The first entry that is meant for so much; the last one has no bound."""
    for entry in _table(target).get(kind, ()):
        if entry[key] is None or size <= entry[key]:
            config: dict[str, Any] = entry["config"]
            return config
    return None


def choose_decode(sequences: int, *, target: str = "sm_90", multiprocessors: int = 132) -> Decode:
    """For a step of at most so many sequences."""
    config = _entry(target, "decode", "max_sequences", sequences)
    if config is None:
        return Decode(hopper=False, block=32, stages=3, num_warps=4, programs=2 * multiprocessors)
    return Decode(**config)


def choose_prefill(tokens: int, *, target: str = "sm_90", multiprocessors: int = 132) -> Prefill:
    """For a step of at most so many tokens. The default fits every GPU that computes in bf16."""
    config = _entry(target, "prefill", "max_tokens", tokens)
    if config is None:
        return Prefill(hopper=False, block=32, stages=2, num_warps=8, programs=multiprocessors)
    return Prefill(**config)
