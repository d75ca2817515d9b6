"""What clients send: OpenAI's fields, and those that vLLM adds. These types are also what `/openapi.json` shows.

A field that is not here is refused. So is one that would change the output and is not supported: its type admits
only the value that asks for nothing. Fields that concern neither the output nor this server are accepted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

__all__ = ["ChatCompletionRequest", "CompletionRequest", "Message", "SharedFields", "StreamOptions", "TextPart", "Tool"]

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
TokenIds = Annotated[list[TokenId], Meta(min_length=1)]
Text = Annotated[str, Meta(min_length=1)]
TokenKey = {"propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"}}
OneKindOfPrompt = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
        },
    ]
}


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class StreamOptions(_Strict, frozen=True, kw_only=True):
    include_usage: bool | None = None
    """A last chunk, without choices, carries the usage."""
    include_obfuscation: bool | None = None
    """Accepted; there is none."""


class TextFormat(_Strict, frozen=True, kw_only=True):
    type: Literal["text"]


class SharedFields(_Strict, frozen=True, kw_only=True):
    """What both endpoints take. null stands for the default everywhere."""

    model: str | None = None
    """One of `/v1/models`; the served model if left out."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    """0 is greedy."""
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """-1 and 0 keep all."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    logit_bias: (
        Annotated[
            dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=300, extra_json_schema=TokenKey)
        ]
        | None
    ) = None
    """Token id → added to its logit."""
    seed: Int64 | None = None
    stop: Text | Annotated[list[Text], Meta(max_length=16)] | None = None
    include_stop_str_in_output: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=256)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    """Leave control tokens out of the text; true by default."""
    return_token_ids: bool | None = None
    """Give the token ids of the prompt and of the text too; while streaming, the prompt's in the first chunk only."""
    return_tokens_as_token_ids: bool | None = None
    """Write tokens in `logprobs` as "token_id:{id}"."""
    cache_salt: str | None = None
    """Requests share cached prefixes only with those of the same salt."""

    # accepted: they do not concern the output
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    # not supported: only the value that asks for nothing
    min_tokens: Literal[0] | None = None
    response_format: TextFormat | None = None


class CompletionRequest(SharedFields, frozen=True, kw_only=True):
    prompt: Annotated[str | list[str | TokenId | TokenIds], Meta(extra_json_schema=OneKindOfPrompt)]
    """A text, token ids, or a list of one of these."""
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    """Log-probabilities of the chosen tokens and of this many alternatives."""
    echo: bool | None = None
    """Begin the text with the prompt; not together with `logprobs`."""
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    """Must equal `n`."""
    suffix: None = None


class TextPart(_Strict, frozen=True, kw_only=True):
    type: Literal["text"]
    text: str


class FunctionCall(_Strict, frozen=True, kw_only=True):
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolCall(_Strict, frozen=True, kw_only=True):
    function: FunctionCall
    id: str | None = None
    type: Literal["function"] = "function"
    index: Int64 | None = None


class Message(_Strict, frozen=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    # of an assistant's message, as the client got it
    refusal: None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None
    function_call: None = None


class Function(_Strict, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Strict, frozen=True, kw_only=True):
    function: Function
    type: Literal["function"] = "function"


class ChatCompletionRequest(SharedFields, frozen=True, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    """Needs `logprobs`."""
    tools: list[Tool] | None = None
    """Shown to the model by its chat template; the answer comes as text."""
    tool_choice: Literal["none", "auto"] | None = None
    """With "none" the model is not shown the tools."""
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, such as `enable_thinking`."""
    enable_thinking: bool | None = None
    """Short for the variable of the same name."""
    add_generation_prompt: bool | None = None
    """Begin the assistant's answer; true by default."""
