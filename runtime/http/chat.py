"""/v1/chat/completions"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from oi.runtime.errors import RequestError
from oi.runtime.generation import Output, Placed
from oi.runtime.http.events import PLACEHOLDER, TextEvent, event
from oi.runtime.http.protocol import ChatCompletionRequest, Message, ToolCall
from oi.runtime.http.responses import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    TokenLogprob,
    TopLogprob,
    Usage,
    json_response,
)
from oi.runtime.http.sampling import check_prompt, max_tokens_for, submits, text_options
from oi.runtime.http.service import SERVICE, Service
from oi.runtime.http.shapes import TokenNames, finite, stop_reason, usage_of
from oi.runtime.http.sse import stream
from oi.runtime.messages import TokenIds

__all__ = ["create_chat_completion"]


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await service.read(request, ChatCompletionRequest)
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("`top_logprobs` needs `logprobs`; set it, or leave both out", "top_logprobs")
    n = body.n or 1
    with service.admit(n):
        prompt = await _encoded(service, body, request.content_length or 0)
        check_prompt(prompt, service.limits, "messages")
        name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        room = max_tokens_for(prompt, getattr(body, name), service.limits, name)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        wanted = submits(body, [prompt], [room], logprobs, service.model.generation, service.limits)
        id = f"chatcmpl-{random.getrandbits(128):032x}"
        with service.generate(request, id, wanted, text_options(body, logprobs), n) as generation:
            shape = _Shape(id, body, service, prompt)  # while the engine works
            if body.stream:
                usage = body.stream_options is not None and bool(body.stream_options.include_usage)
                return await stream(request, id, generation, shape, n, include_usage=usage)
            await generation.finished()
            whole = shape.whole(generation.outputs, usage_of(generation.outputs, n))
            return json_response(whole, request_id=id)


async def _encoded(service: Service, body: ChatCompletionRequest, characters: int) -> TokenIds:
    template = service.model.template
    if template is None:
        raise RequestError("this model has no chat template; use /v1/completions", "messages")
    kwargs = dict(body.chat_template_kwargs or {})
    if body.enable_thinking is not None:
        kwargs["enable_thinking"] = body.enable_thinking
    tools = [_plain(tool) for tool in body.tools or ()] if body.tool_choice != "none" else []
    messages = [_message(message) for message in body.messages]
    return await service.off_loop(
        characters,
        lambda: template.encode(
            messages,
            tools=tools,
            add_generation_prompt=body.add_generation_prompt is not False,
            kwargs=kwargs,
        ),
    )


def _message(message: Message) -> dict[str, Any]:
    """As chat templates expect it: content is a string, fields that say nothing are left out."""
    content = message.content
    if isinstance(content, list):
        content = "\n".join(part.text for part in content)
    plain = {
        "role": "system" if message.role == "developer" else message.role,
        "content": content or "",
        "name": message.name,
        "tool_calls": [_tool_call(call) for call in message.tool_calls or ()] or None,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content,
    }
    return {name: value for name, value in plain.items() if value is not None}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    """Templates write the arguments' JSON themselves, so they get the object."""
    plain = _plain(call)
    try:
        arguments = json.loads(call.function.arguments)
    except ValueError:
        return plain
    if isinstance(arguments, dict):
        plain["function"]["arguments"] = arguments
    return plain


def _plain(record: msgspec.Struct) -> dict[str, Any]:
    return _without_nulls(msgspec.to_builtins(record))


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_nulls(v) if k == "function" else v for k, v in fields.items() if v is not None}


class _Shape:
    def __init__(self, id: str, body: ChatCompletionRequest, service: Service, prompt: TokenIds) -> None:
        self.id = id
        self._body = body
        self._model = service.name
        self._created = int(time.time())
        self._eos_ids = () if body.ignore_eos else service.model.generation.eos_ids
        self._names = TokenNames(service.model.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
        self._prompt_ids = prompt.tolist() if body.return_token_ids else UNSET
        self._begun: set[int] = set()
        self._asks_tokens = bool(body.logprobs) or bool(body.return_token_ids)
        self._null_usage = None if body.stream_options and body.stream_options.include_usage else UNSET
        self._text_events: dict[int, TextEvent] = {}

    def events(self, output: Output) -> Iterable[bytes]:
        if output.index not in self._begun:
            prompt_ids = UNSET if self._begun else self._prompt_ids
            self._begun.add(output.index)
            begin = ChatChunkChoice(index=output.index, delta=ChatDelta(role="assistant", content=""))
            yield event(self._chunk([begin], self._null_usage, prompt_ids))
        text, placed = output.take()
        if output.finish_reason is None and not self._asks_tokens:
            if text:
                yield self._text_event(output.index).fill(text)
            return
        choice = ChatChunkChoice(
            index=output.index,
            delta=ChatDelta(content=text) if text else ChatDelta(),
            logprobs=self._logprobs(placed),
            finish_reason=output.finish_reason,  # type: ignore[arg-type]  # abort and error do not come here
            stop_reason=stop_reason(output, self._eos_ids),
            token_ids=_ids(placed) if self._body.return_token_ids else UNSET,
        )
        yield event(self._chunk([choice], self._null_usage))

    def _text_event(self, index: int) -> TextEvent:
        """Of a choice that goes on."""
        found = self._text_events.get(index)
        if found is None:
            choice = ChatChunkChoice(index=index, delta=ChatDelta(content=PLACEHOLDER))
            found = self._text_events[index] = TextEvent(self._chunk([choice], self._null_usage))
        return found

    def usage_chunk(self, usage: Usage) -> ChatCompletionChunk:
        return self._chunk([], usage)

    def whole(self, outputs: Sequence[Output], usage: Usage) -> ChatCompletion:
        return ChatCompletion(
            id=self.id,
            created=self._created,
            model=self._model,
            choices=[self._choice(output) for output in outputs],
            usage=usage,
            prompt_token_ids=self._prompt_ids,
        )

    def _chunk(
        self,
        choices: list[ChatChunkChoice],
        usage: Usage | msgspec.UnsetType | None,
        prompt_ids: list[int] | msgspec.UnsetType = UNSET,
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self.id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage,
            prompt_token_ids=prompt_ids,
        )

    def _choice(self, output: Output) -> ChatChoice:
        text, placed = output.take()
        return ChatChoice(
            index=output.index,
            message=ChatMessage(content=text),
            logprobs=self._logprobs(placed),
            finish_reason=output.finish_reason,  # type: ignore[arg-type]  # abort and error do not come here
            stop_reason=stop_reason(output, self._eos_ids),
            token_ids=_ids(placed) if self._body.return_token_ids else UNSET,
        )

    def _logprobs(self, placed: Sequence[Placed]) -> ChatLogprobs | None:
        if not self._body.logprobs:
            return None
        return ChatLogprobs(content=[self._token_logprob(p) for p in placed])

    def _token_logprob(self, placed: Placed) -> TokenLogprob:
        token, names = placed.token, self._names
        return TokenLogprob(
            token=names.text(token.token),
            logprob=finite(token.logprob),
            bytes=names.bytes(token.token),
            top_logprobs=[
                TopLogprob(token=names.text(id), logprob=finite(logprob), bytes=names.bytes(id))
                for id, logprob in (token.top or ())[: self._body.top_logprobs or 0]
            ],
        )


def _ids(placed: Sequence[Placed]) -> list[int]:
    return [p.token.token for p in placed]
