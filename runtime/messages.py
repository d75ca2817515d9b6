"""What the HTTP process and the engine process say to each other: msgpack records, one a direction a step."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    TokenIds = array[int]
else:  # Python 3.11's cannot be subscripted
    TokenIds = array
"""Of typecode "i": int32. They travel as bytes."""

FinishReason = Literal["stop", "length", "abort", "error"]


class SamplingParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to choose each token. The order of application is that of `ir/ops/sampling.py`'s Sample."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    seed: int = 0
    """64 bits. The HTTP process draws one where the client gives none."""


class Submit(msgspec.Struct, frozen=True, tag="submit", omit_defaults=True):
    """One sequence to generate (a request with n > 1 is n of these)."""

    id: int
    """Unique for the life of the engine; the sender chooses."""
    prompt: TokenIds
    sampling: SamplingParams
    max_tokens: int
    stop_token_ids: list[int] = []
    """Generation ends after one of these; the token is reported, with finish reason `stop`."""
    logprobs: int | None = None
    """Report the chosen token's log-probability and this many (0 to 20) alternatives."""
    salt: str = ""
    """Sequences share cached prefixes only with those of the same salt."""


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Stop these sequences and free their pages. Unknown ids are ignored (they may have just finished)."""

    ids: list[int]


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Finish nothing more; leave at once."""


ToEngine = Submit | Abort | Shutdown


class Token(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One generated token of one sequence."""

    id: int
    token: int
    finish: FinishReason | None = None
    logprob: float | None = None
    top: list[tuple[int, float]] | None = None
    """Alternatives in falling order of log-probability."""
    cached: int | None = None
    """Prompt tokens served from the prefix cache; on a sequence's first token only."""


class Stats(msgspec.Struct, frozen=True, array_like=True):
    """The engine's state after a step. Counters only grow."""

    steps: int
    running: int
    waiting: int
    pages_used: int
    """Pages held by running sequences."""
    pages_cached: int
    """Pages free to reuse that still hold a prefix."""
    pages_total: int
    prefix_queries: int
    """Prompt tokens looked up, counted once a sequence, at its first admission."""
    prefix_hits: int
    """Prompt tokens found, counted likewise."""
    prompt_tokens: int
    """Prompt tokens computed, recomputation after preemption left out."""
    generated_tokens: int
    preemptions: int
    step_seconds: float
    """Duration of the last step."""
    host_pages_used: int = 0
    """Pages of the host tier that hold a prefix."""
    host_pages_total: int = 0
    """0 without a host tier. It grows while the tier's memory is got ready."""
    host_hits: int = 0
    """Prompt tokens that were found on the host and not on the device (prefix_hits has those on the device)."""
    saved_bytes: int = 0
    """Copied to the host."""
    restored_bytes: int = 0
    """Copied back."""
    save_seconds: float = 0.0
    """Of those copies, each from its first byte to its last."""
    restore_seconds: float = 0.0


class StepDone(msgspec.Struct, frozen=True, tag="step"):
    """Everything that one step brought, for all sequences. Also sent without tokens as a sign of life."""

    tokens: list[Token]
    stats: Stats


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A sequence that cannot run; the others are undisturbed."""

    id: int
    message: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Weights are loaded and memory is allocated; sent once."""

    max_model_len: int
    max_num_seqs: int
    vocab_size: int
    pages_total: int
    page_size: int


class Fatal(msgspec.Struct, frozen=True, tag="fatal"):
    """The engine cannot start or go on; it exits after this."""

    message: str


FromEngine = StepDone | Failed | Ready | Fatal
