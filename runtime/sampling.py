"""What a sequence brings to its draws: random numbers, and edits to the logits.

The kernels' definition of a draw is `ir/ops/sampling.py`'s Sample; here are the inputs that depend on the
sequence's own history only, never on its neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from oi.runtime.errors import RequestError
from oi.runtime.messages import SamplingParams

__all__ = ["GREEDY_BELOW", "LogitEdits", "check_sampling", "logit_edits", "most_edits", "philox4x32", "uniform"]

GREEDY_BELOW = 1e-5
"""A temperature below this is 0: dividing float32 logits by less would overflow."""

_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
_ROUNDS = 10


def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox 4×32 with 10 rounds (Salmon et al., Parallel random numbers: as easy as 1, 2, 3).

    counter u32[4, n], key u32[2, n] → u32[4, n]: four random words for each of the n pairs.
    """
    even, odd = counter[0::2].astype(np.uint64), counter[1::2].astype(np.uint64)
    keys = key + np.arange(_ROUNDS, dtype=np.uint32)[:, None, None] * _WEYL[:, None]
    for round_key in keys:
        product = even * _MULTIPLIERS
        even = (product >> np.uint64(32))[::-1] ^ odd ^ round_key
        odd = product[::-1] & np.uint64(0xFFFFFFFF)
    return np.stack([even, odd], axis=1).reshape(4, -1).astype(np.uint32)


def uniform(seeds: NDArray[np.uint64], positions: NDArray[np.int32]) -> NDArray[np.float32]:
    """f32[n] in [0, 1), one for each (seed, position of the token to draw in its sequence)."""
    counter = np.zeros((4, len(positions)), np.uint32)
    counter[0] = positions
    key = np.stack([seeds & np.uint64(0xFFFFFFFF), seeds >> np.uint64(32)]).astype(np.uint32)
    words: NDArray[np.uint32] = philox4x32(counter, key)[0]
    draws: NDArray[np.float32] = np.ldexp((words >> np.uint32(8)).astype(np.float32), -24)
    return draws


class LogitEdits:
    """One sequence's edits (token, scale, add), kept up to date token by token; a token has one edit.

    scale: the repetition penalty, for every token of the prompt or generated.
    add:   logit_bias, less presence_penalty and frequency_penalty · times generated for tokens generated.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        biased = list(params.logit_bias)
        repeated = set(prompt) if params.repetition_penalty != 1.0 else set()
        tokens = [*biased, *repeated.difference(biased)]
        self.counts_tokens = _penalises(params)
        """Whether tokens generated change the edits."""
        self._params = params
        self._place = {token: i for i, token in enumerate(tokens)}
        self._generated: Counter[int] = Counter()
        self._tokens = np.array(tokens, np.int32)
        self._scale = np.full(len(tokens), params.repetition_penalty, np.float32)
        self._scale[: len(biased)] = [params.repetition_penalty if token in repeated else 1.0 for token in biased]
        self._add = np.zeros(len(tokens), np.float32)
        self._add[: len(biased)] = list(params.logit_bias.values())

    def __len__(self) -> int:
        return len(self._place)

    @property
    def tokens(self) -> NDArray[np.int32]:
        """i32[len], distinct."""
        return self._tokens[: len(self)]

    @property
    def scale(self) -> NDArray[np.float32]:
        return self._scale[: len(self)]

    @property
    def add(self) -> NDArray[np.float32]:
        return self._add[: len(self)]

    def count(self, token: int) -> None:
        """`token` was generated."""
        params = self._params
        if not self.counts_tokens:
            return
        self._generated[token] += 1
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._tokens):
            self._grow()
        self._tokens[place] = token
        self._scale[place] = params.repetition_penalty
        penalty = params.presence_penalty + params.frequency_penalty * self._generated[token]
        self._add[place] = params.logit_bias.get(token, 0.0) - penalty

    def _grow(self) -> None:
        capacity = max(16, 2 * len(self._tokens))
        for name in ("_tokens", "_scale", "_add"):
            old = getattr(self, name)
            new = np.empty(capacity, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)


def logit_edits(params: SamplingParams, prompt: Sequence[int]) -> LogitEdits | None:
    """None where no token will ever be edited."""
    return LogitEdits(params, prompt) if params.logit_bias or _penalises(params) else None


def most_edits(params: SamplingParams, prompt: Sequence[int], max_tokens: int, vocab_size: int) -> int:
    """How many edits the sequence's last draw may need."""
    tokens = set(params.logit_bias)
    if params.repetition_penalty != 1.0:
        tokens.update(prompt)
    return min(vocab_size, len(tokens) + (max_tokens - 1 if _penalises(params) else 0))


def _penalises(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0


def check_sampling(params: SamplingParams, vocab_size: int) -> None:
    """Raises RequestError where a draw would have no meaning."""
    for name, valid, rule in (
        ("temperature", params.temperature >= 0, "at least 0"),
        ("top_p", 0 < params.top_p <= 1, "over 0 and at most 1"),
        ("top_k", 0 <= params.top_k < 1 << 31, "at least 0 (0 keeps all tokens)"),
        ("min_p", 0 <= params.min_p <= 1, "from 0 to 1"),
        ("repetition_penalty", params.repetition_penalty > 0, "over 0"),
        ("presence_penalty", True, "finite"),
        ("frequency_penalty", True, "finite"),
    ):
        if not valid or not isfinite(getattr(params, name)):
            raise RequestError(f"{name} must be {rule}; found {getattr(params, name)}", name)
    for token, bias in params.logit_bias.items():
        if not 0 <= token < vocab_size or not isfinite(bias):
            raise RequestError(f"logit_bias of token {token} is {bias}: tokens are 0 to {vocab_size - 1}", "logit_bias")
