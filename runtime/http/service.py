"""What every handler shares: the model's text side, the engine, who is admitted, what is counted and logged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from oi.runtime.engine_client import EngineClient
from oi.runtime.errors import EngineDead, Overloaded
from oi.runtime.generation import Generation, Output, TextOptions
from oi.runtime.http.errors import ApiError, validation_error
from oi.runtime.http.metrics import Metrics
from oi.runtime.http.protocol import ChatCompletionRequest, CompletionRequest
from oi.runtime.http.request_log import WORK, Work
from oi.runtime.http.sampling import Limits
from oi.runtime.http.status import History, State
from oi.runtime.messages import Ready, Submit
from oi.runtime.text_model import TextModel

__all__ = ["ARRIVED_AT", "SERVICE", "Service"]

MAX_BODY_BYTES = 16 << 20
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    type: msgspec.json.Decoder(type) for type in (CompletionRequest, ChatCompletionRequest)
}
_Request = TypeVar("_Request", CompletionRequest, ChatCompletionRequest)
_Result = TypeVar("_Result")


class Service:
    def __init__(self, client: EngineClient, name: str, root: str, max_queue: int) -> None:
        """`name` is what clients call the model, `root` where it came from; `max_queue` sequences may wait."""
        self.client = client
        self.name = name
        self.root = root
        self.created = int(time.time())
        self.metrics = Metrics(name)
        client.on_stats = self.metrics.observe_stats
        self.history = History(self.metrics)
        self.draining = False
        self.requests = 0
        """In flight, from the reading of the body to the last byte written."""
        self._max_queue = max_queue
        self._sequences = 0
        self._capacity = 0
        self._model: TextModel | None = None
        self._limits: Limits | None = None
        self._live: set[Generation] = set()
        self._tokenizing = ThreadPoolExecutor(1, "tokenize")

    def open(self, model: TextModel, ready: Ready) -> None:
        """From now on requests are served."""
        self._model = model
        self._limits = Limits.of(ready)
        self.metrics.ready = ready
        self._capacity = ready.max_num_seqs + self._max_queue

    @property
    def model(self) -> TextModel:
        """Raises ApiError while it is not there."""
        self.check_open()
        assert self._model is not None
        return self._model

    @property
    def limits(self) -> Limits:
        """Raises ApiError while they are not known."""
        self.check_open()
        assert self._limits is not None
        return self._limits

    @property
    def state(self) -> State:
        if self.client.died.done():
            return "dead"
        if self.draining:
            return "draining"
        return "loading" if self._model is None else "ready"

    def check_open(self) -> None:
        """Raises ApiError while requests cannot be served: loading, shutting down, or the engine is gone."""
        retry = {"Retry-After": "1"}
        if self.draining:
            headers = {**retry, "Connection": "close"}
            raise ApiError(503, "the server is shutting down; send the request again", code="draining", headers=headers)
        if self.client.died.done():
            raise ApiError(503, f"the engine is gone: {self.client.died.result()}", code="engine_dead")
        if self._model is None:
            raise ApiError(503, "the model is being loaded; send the request again", code="loading", headers=retry)

    async def read(self, request: web.Request, type: type[_Request]) -> _Request:
        """The body. Raises ApiError where it is not what the endpoint takes, or names another model."""
        self.check_open()
        data = await request.read()
        try:
            body: _Request = _DECODERS[type].decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
            raise validation_error(e) from e
        if body.model is not None:
            self.check_name(body.model)
        if body.stream_options is not None and not body.stream:
            raise ApiError(400, "`stream_options` needs `stream`; set it, or leave them out", param="stream_options")
        return body

    def check_name(self, name: str) -> None:
        if name != self.name:
            message = f"no model {name!r} here; this server has {self.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def off_loop(self, characters: int, work: Callable[[], _Result]) -> _Result:
        """`work()`, beside the event loop where the text is long."""
        if characters <= self.model.tokenizer.quick_characters:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    @contextlib.contextmanager
    def admit(self, sequences: int) -> Iterator[None]:
        """Count a request's sequences while it is served. Raises Overloaded where too many wait already."""
        if self._sequences and self._sequences + sequences > self._capacity:
            raise Overloaded(
                f"{self._sequences} sequences are running or waiting, and {sequences} more would exceed "
                f"{self._capacity}; send the request again later"
            )
        self._sequences += sequences
        try:
            yield
        finally:
            self._sequences -= sequences

    @contextlib.contextmanager
    def generate(
        self, request: web.Request, id: str, submits: Sequence[Submit], options: TextOptions, n: int
    ) -> Iterator[Generation]:
        """Submit, and at the end abort what runs, and count. `submits` holds `n` for each prompt."""
        outputs = [
            Output(i, msgspec.structs.replace(s, id=self.client.next_id()), self.model.tokenizer, options)
            for i, s in enumerate(submits)
        ]
        request[WORK] = Work(id, outputs, n)
        arrived_at = request[ARRIVED_AT]
        first_token, interval = self.metrics.first_token.observe, self.metrics.interval.observe
        generation = Generation(self.client, outputs, lambda now: first_token(now - arrived_at), interval)
        self._live.add(generation)
        try:
            with generation:
                yield generation
        finally:
            self._live.discard(generation)
            for output in outputs:
                self.metrics.observe_output(output, arrived_at)

    def give_up(self) -> None:
        """End every request with an error."""
        for generation in list(self._live):
            for output in generation.outputs:
                generation.fail(output, EngineDead("the server is shutting down; send the request again"))


SERVICE = web.AppKey("service", Service)
ARRIVED_AT = web.RequestKey("arrived_at", float)
"""`time.perf_counter` when its head was there."""
