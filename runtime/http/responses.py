"""What the server sends. These types are also what `/openapi.json` shows.

OpenAI's fields are always there, null where they say nothing; those that vLLM adds are there when asked for.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

FinishReason = Literal["stop", "length"]


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class CachedTokens(_Record, frozen=True, kw_only=True):
    cached_tokens: int


class Usage(_Record, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


# /v1/completions


class CompletionLogprobs(_Record, frozen=True, kw_only=True):
    tokens: list[str]
    """Tokens whose bytes are not whole characters are written "bytes:\\xe2\\x82"."""
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]
    """Characters of the text before each token."""


class CompletionChoice(_Record, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    """The stop token's id or the stop string."""
    prompt_token_ids: list[int] | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET


class Completion(_Record, frozen=True, kw_only=True):
    """The answer, or a chunk of its stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str | None = None
    usage: Usage | UnsetType | None = UNSET


# /v1/chat/completions


class TopLogprob(_Record, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(_Record, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Record, frozen=True, kw_only=True):
    content: list[TokenLogprob]
    refusal: None = None


class ChatMessage(_Record, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(_Record, frozen=True, kw_only=True):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None
    stop_reason: int | str | None = None
    """The stop token's id or the stop string."""
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(_Record, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    system_fingerprint: str | None = None
    usage: Usage
    prompt_token_ids: list[int] | UnsetType = UNSET


class ChatDelta(_Record, frozen=True, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(_Record, frozen=True, kw_only=True):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletionChunk(_Record, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    system_fingerprint: str | None = None
    usage: Usage | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


# the rest


class Model(_Record, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "oi"
    root: str
    max_model_len: int


class ModelList(_Record, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]


class Health(_Record, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"


class Version(_Record, frozen=True, kw_only=True):
    version: str


class ErrorBody(_Record, frozen=True, kw_only=True):
    message: str
    """Says what is wrong and how to mend it."""
    type: str
    param: str | None
    """The field at fault."""
    code: str | None


class Error(_Record, frozen=True, kw_only=True):
    error: ErrorBody


def json_response(record: msgspec.Struct, *, request_id: str | None = None) -> web.Response:
    headers = {"X-Request-Id": request_id} if request_id else {}
    return web.Response(body=msgspec.json.encode(record), content_type="application/json", headers=headers)
