"""/v1/completions"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Iterable, Sequence

import msgspec
from aiohttp import web
from msgspec import UNSET

from oi.runtime.errors import RequestError
from oi.runtime.generation import Output, Placed
from oi.runtime.http.events import PLACEHOLDER, TextEvent, event
from oi.runtime.http.protocol import CompletionRequest
from oi.runtime.http.responses import Completion, CompletionChoice, CompletionLogprobs, Usage, json_response
from oi.runtime.http.sampling import check_ids, check_prompt, max_tokens_for, submits, text_options
from oi.runtime.http.service import SERVICE, Service
from oi.runtime.http.shapes import TokenNames, finite, stop_reason, usage_of
from oi.runtime.http.sse import stream
from oi.runtime.messages import TokenIds

__all__ = ["create_completion"]

_DEFAULT_MAX_TOKENS = 16
"""OpenAI's, and vLLM's, for this endpoint."""


async def create_completion(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = await service.read(request, CompletionRequest)
    n = body.n or 1
    if (body.best_of or n) != n:
        raise RequestError("choosing among more than `n` is not supported; leave `best_of` out", "best_of")
    if body.echo and body.logprobs is not None:
        raise RequestError("`echo` with `logprobs` is not supported; leave one of them out", "echo")
    given = _prompts(body)
    with service.admit(len(given) * n):
        prompts = await _encoded(service, given)
        rooms = [_room(body, prompt, service) for prompt in prompts]
        wanted = submits(body, prompts, rooms, body.logprobs, service.model.generation, service.limits)
        id = f"cmpl-{random.getrandbits(128):032x}"
        with service.generate(request, id, wanted, text_options(body, body.logprobs), n) as generation:
            shape = _Shape(id, body, service, given, prompts)  # while the engine works
            if body.stream:
                usage = body.stream_options is not None and bool(body.stream_options.include_usage)
                return await stream(request, id, generation, shape, n, include_usage=usage)
            await generation.finished()
            whole = shape.whole(generation.outputs, usage_of(generation.outputs, n))
            return json_response(whole, request_id=id)


def _prompts(body: CompletionRequest) -> list[str | list[int]]:
    """One entry a prompt. Raises RequestError where text and ids are mixed."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    texts = [p for p in prompt if isinstance(p, str)]
    ids = [p for p in prompt if isinstance(p, int)]
    lists = [p for p in prompt if isinstance(p, list)]
    if not prompt:
        raise RequestError("`prompt` is an empty list; give at least one prompt", "prompt")
    if len(prompt) not in (len(texts), len(ids), len(lists)):
        raise RequestError("`prompt` mixes texts and token ids; send them in requests of their own", "prompt")
    return [ids] if ids else [*texts, *lists]


async def _encoded(service: Service, given: Sequence[str | list[int]]) -> list[TokenIds]:
    tokenizer = service.model.tokenizer
    characters = sum(len(prompt) for prompt in given if isinstance(prompt, str))
    for prompt in given:
        if not isinstance(prompt, str):
            check_ids(prompt, service.limits, "prompt")
    prompts = await service.off_loop(
        characters, lambda: [tokenizer.encode(p) if isinstance(p, str) else array("i", p) for p in given]
    )
    for encoded in prompts:
        check_prompt(encoded, service.limits, "prompt")
    return prompts


def _room(body: CompletionRequest, prompt: Sequence[int], service: Service) -> int:
    room = max_tokens_for(prompt, body.max_tokens, service.limits, "max_tokens")
    return room if body.max_tokens is not None else min(room, _DEFAULT_MAX_TOKENS)


class _Shape:
    def __init__(
        self,
        id: str,
        body: CompletionRequest,
        service: Service,
        given: Sequence[str | list[int]],
        prompts: list[TokenIds],
    ) -> None:
        self.id = id
        self._body = body
        self._model = service.name
        self._created = int(time.time())
        self._names = TokenNames(service.model.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
        self._eos_ids = () if body.ignore_eos else service.model.generation.eos_ids
        self._prompts = prompts
        decode = service.model.tokenizer.decode
        self._echoes = [p if isinstance(p, str) else decode(p) for p in given] if body.echo else [""] * len(given)
        self._begun: set[int] = set()
        self._asks_tokens = body.logprobs is not None or bool(body.return_token_ids)
        self._null_usage = None if body.stream_options and body.stream_options.include_usage else UNSET
        self._text_events: dict[int, TextEvent] = {}

    def events(self, output: Output) -> Iterable[bytes]:
        if output.index in self._begun and output.finish_reason is None and not self._asks_tokens:
            text, _ = output.take()
            return [self._text_event(output.index).fill(text)] if text else []
        choice = self._choice(output)
        if choice.text or choice.finish_reason or self._asks_tokens:
            return [event(self._completion([choice], self._null_usage))]
        return []

    def _text_event(self, index: int) -> TextEvent:
        """Of a choice that has begun and goes on."""
        found = self._text_events.get(index)
        if found is None:
            choice = CompletionChoice(index=index, text=PLACEHOLDER)
            found = self._text_events[index] = TextEvent(self._completion([choice], self._null_usage))
        return found

    def usage_chunk(self, usage: Usage) -> Completion:
        return self._completion([], usage)

    def whole(self, outputs: Sequence[Output], usage: Usage) -> Completion:
        return self._completion([self._choice(output) for output in outputs], usage)

    def _completion(self, choices: list[CompletionChoice], usage: Usage | msgspec.UnsetType | None) -> Completion:
        return Completion(id=self.id, created=self._created, model=self._model, choices=choices, usage=usage)

    def _choice(self, output: Output) -> CompletionChoice:
        prompt = output.index // (self._body.n or 1)
        first = output.index not in self._begun
        self._begun.add(output.index)
        text, placed = output.take()
        ids = bool(self._body.return_token_ids)
        return CompletionChoice(
            index=output.index,
            text=self._echoes[prompt] + text if first else text,
            logprobs=self._logprobs(placed) if self._body.logprobs is not None else None,
            finish_reason=output.finish_reason,  # type: ignore[arg-type]  # abort and error do not come here
            stop_reason=stop_reason(output, self._eos_ids),
            prompt_token_ids=self._prompts[prompt].tolist() if ids and first else UNSET,
            token_ids=[p.token.token for p in placed] if ids else UNSET,
        )

    def _logprobs(self, placed: Sequence[Placed]) -> CompletionLogprobs:
        name = self._names.distinct
        return CompletionLogprobs(
            tokens=[name(p.token.token) for p in placed],
            token_logprobs=[finite(p.token.logprob) for p in placed],
            top_logprobs=[self._top(p) for p in placed],
            text_offset=[p.offset for p in placed],
        )

    def _top(self, placed: Placed) -> dict[str, float]:
        """The alternatives, and the chosen token where it is none of them."""
        token = placed.token
        top = {self._names.distinct(id): finite(logprob) for id, logprob in (token.top or ())[: self._body.logprobs]}
        top.setdefault(self._names.distinct(token.token), finite(token.logprob))
        return top
