"""One sequence's life in the engine: its tokens, how many of them are in the KV cache, and when it ends."""

from __future__ import annotations

from array import array

import numpy as np

from oi.runtime.copies import Copy
from oi.runtime.kv import PageTable
from oi.runtime.messages import FinishReason, Submit
from oi.runtime.sampling import GREEDY_BELOW, logit_edits

__all__ = ["DRAW", "Sequence"]

DRAW = np.dtype(
    [
        ("temperature", np.float32),
        ("top_k", np.int32),
        ("top_p", np.float32),
        ("min_p", np.float32),
        ("seed", np.uint64),
    ]
)
"""What all of a sequence's draws have in common; a temperature of 0 is greedy."""


class Sequence:
    """
        tokens    |---------- prompt ----------|------ generated ------|
        length    |---------- prompt ----------|------ generated ------|· pending ·|
        computed  |---- in the KV cache ----|········ still to compute ········|

    Pending tokens are drawn by steps in flight: their number is known, not their values. `computed` counts what the
    steps started so far put into the cache. Everything but `table` and `computed` survives a preemption.
    """

    __slots__ = (
        "cached",
        "computed",
        "draw",
        "edits",
        "ended",
        "id",
        "last_step",
        "length",
        "limit",
        "logprobs",
        "prompt_computed",
        "prompt_len",
        "restore",
        "row",
        "stop",
        "table",
        "tokens",
    )

    def __init__(self, request: Submit) -> None:
        sampling = request.sampling
        self.id = request.id
        self.tokens = array("i", request.prompt)
        self.length = self.prompt_len = len(request.prompt)
        self.limit = self.prompt_len + request.max_tokens
        """The length at which it ends."""
        self.stop = frozenset(request.stop_token_ids)
        self.logprobs = request.logprobs
        temperature = 0.0 if sampling.temperature < GREEDY_BELOW else sampling.temperature
        seed = sampling.seed & 0xFFFFFFFFFFFFFFFF
        self.draw = np.array((temperature, sampling.top_k, sampling.top_p, sampling.min_p, seed), DRAW).tobytes()
        self.edits = logit_edits(sampling, request.prompt)
        self.table = PageTable(request.salt)
        self.computed = 0
        self.row = -1
        """Which row of the step started last draws the pending token, if that step draws one."""
        self.cached: int | None = None
        """Prompt tokens found in the prefix cache at the first admission; None before it."""
        self.prompt_computed = 0
        """The most prompt tokens that were ever found or computed."""
        self.last_step = -1
        """Steps that were started before the last one with edits or a chunk of it."""
        self.restore: Copy | None = None
        """What brings more of it from the host: until that has landed it sits out."""
        self.ended = False
        """Finished or aborted: what steps in flight draw for it is dropped."""

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next draw, at least 1."""
        return self.length - self.computed

    @property
    def num_known(self) -> int:
        """Tokens in the cache, or on their way there, whose values are known."""
        return min(self.computed, len(self.tokens))

    @property
    def num_edits(self) -> int:
        return 0 if self.edits is None else len(self.edits)

    @property
    def stalled(self) -> bool:
        """The next draw's edits depend on a token that is pending."""
        return self.length > len(self.tokens) and self.edits is not None and self.edits.counts_tokens

    def append(self, token: int) -> FinishReason | None:
        """A pending token is known now. Returns why the sequence ends with it, None where it goes on."""
        self.tokens.append(token)
        if self.edits is not None:
            self.edits.count(token)
        if token in self.stop:
            return "stop"
        return "length" if len(self.tokens) == self.limit else None
