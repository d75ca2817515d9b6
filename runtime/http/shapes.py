"""What the shapes of both endpoints have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from oi.runtime.generation import Output
from oi.runtime.http.responses import CachedTokens, Usage
from oi.runtime.tokenizer import Tokenizer

__all__ = ["Shape", "TokenNames", "finite", "stop_reason", "usage_of"]


class Shape(Protocol):
    """How one request's outputs are written."""

    def events(self, output: Output) -> Iterable[bytes]:
        """What a stream says of an output's news."""
        ...

    def usage_chunk(self, usage: Usage) -> msgspec.Struct:
        """What a stream ends with where usage is asked for."""
        ...

    def whole(self, outputs: Sequence[Output], usage: Usage) -> msgspec.Struct:
        """The answer of a request that does not stream."""
        ...


def usage_of(outputs: Sequence[Output], n: int) -> Usage:
    """A prompt counts once, however many choices it has; it was cached as far as its first choice found it so."""
    first_choices = outputs[::n]
    prompt = sum(len(output.submit.prompt) for output in first_choices)
    generated = sum(output.generated for output in outputs)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=generated,
        total_tokens=prompt + generated,
        prompt_tokens_details=CachedTokens(cached_tokens=sum(output.cached for output in first_choices)),
    )


def stop_reason(output: Output, eos_ids: Collection[int]) -> str | int | None:
    """As vLLM has it: the stop string or the stop token, but null for the model's own end of sequence."""
    return None if output.stop_reason in eos_ids else output.stop_reason


class TokenNames:
    """How tokens are written in log-probabilities."""

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def text(self, id: int) -> str:
        """As text, U+FFFD for bytes that are not whole characters."""
        return f"token_id:{id}" if self._as_ids else self._tokenizer.token_bytes(id).decode("utf-8", "replace")

    def distinct(self, id: int) -> str:
        """As text that differs between tokens that differ in their bytes."""
        if self._as_ids:
            return f"token_id:{id}"
        data = self._tokenizer.token_bytes(id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def bytes(self, id: int) -> list[int]:
        return list(self._tokenizer.token_bytes(id))


def finite(logprob: float | None) -> float:
    """JSON knows no infinity: what cannot happen is written -9999, as OpenAI and vLLM do."""
    return max(logprob, -9999.0) if logprob is not None else -9999.0
