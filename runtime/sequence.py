"""One sequence's life in the engine: its tokens, how many of them are in the KV cache, and when it ends."""

from __future__ import annotations

from array import array

from oi.runtime.kv import PageTable
from oi.runtime.messages import FinishReason, Submit
from oi.runtime.sampling import GREEDY_BELOW, logit_edits

__all__ = ["Sequence"]


class Sequence:
    """
        tokens    |---------- prompt ----------|------ generated ------|
        computed  |---- in the KV cache ----|···· still to compute ····|

    Everything of it but `table` and `computed` survives a preemption.
    """

    __slots__ = (
        "cached",
        "computed",
        "edits",
        "id",
        "last_step",
        "logprobs",
        "max_tokens",
        "prompt_computed",
        "prompt_len",
        "sampling",
        "stop",
        "table",
        "tokens",
    )

    def __init__(self, request: Submit) -> None:
        self.id = request.id
        self.tokens = array("i", request.prompt)
        self.prompt_len = len(request.prompt)
        self.max_tokens = request.max_tokens
        self.stop = frozenset(request.stop_token_ids)
        self.sampling = request.sampling
        self.logprobs = request.logprobs
        self.edits = logit_edits(request.sampling, request.prompt)
        self.table = PageTable(request.salt)
        self.computed = 0
        self.cached: int | None = None
        """Prompt tokens found in the prefix cache at the first admission; None before it."""
        self.prompt_computed = 0
        """The most prompt tokens that were ever found or computed."""
        self.last_step = 0
        """Number of the last step that had a part of it."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next draw, at least 1."""
        return len(self.tokens) - self.computed

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def num_edits(self) -> int:
        return 0 if self.edits is None else len(self.edits)

    @property
    def greedy(self) -> bool:
        return self.sampling.temperature < GREEDY_BELOW

    def append(self, token: int) -> FinishReason | None:
        """Take a token just drawn. Returns why the sequence ends with it, None where it goes on."""
        self.tokens.append(token)
        if self.edits is not None:
            self.edits.count(token)
        if token in self.stop:
            return "stop"
        return "length" if self.num_generated >= self.max_tokens else None
