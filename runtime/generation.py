"""A request's sequences on their way: tokens come in a step at a time, text goes out as fast as the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from oi.runtime.detokenizer import Detokenizer, StopMatcher
from oi.runtime.engine_client import EngineClient
from oi.runtime.errors import EngineDead, OiError
from oi.runtime.messages import FinishReason, Submit, Token
from oi.runtime.tokenizer import Tokenizer

__all__ = ["Generation", "Output", "Placed", "TextOptions"]


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How tokens become text."""

    stops: Sequence[str] = ()
    include_stop: bool = False
    """Keep the stop string, or the text of the stop token, at the end of the text."""
    skip_specials: bool = True
    keep_tokens: bool = False
    """Whether `Output.take` gives the tokens too."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A token, and the number of characters of the whole text before it."""

    token: Token
    offset: int


class Output:
    """One sequence. News gathers here until `take`; finishing and stop strings do not wait for it."""

    def __init__(self, index: int, submit: Submit, tokenizer: Tokenizer, options: TextOptions) -> None:
        self.index = index
        self.submit = submit
        self.generated = 0
        """Tokens."""
        self.cached = 0
        """Prompt tokens that came from the prefix cache."""
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | int | None = None
        """The stop string, or the stop token's id."""
        self.error: OiError | None = None
        self.first_at = self.last_at = 0.0
        """`time.perf_counter` of the first and the last token."""
        self.has_news = False
        """Tokens have come since the last `take`; there need not be text."""
        self._include_stop = options.include_stop
        self._keep_tokens = options.keep_tokens
        self._detokenizer = Detokenizer(tokenizer, skip_specials=options.skip_specials)
        self._stops = StopMatcher(options.stops, include_stop=options.include_stop)
        self._text = ""
        self._placed: list[Placed] = []
        self._offset = 0

    def add(self, token: Token) -> bool:
        """Whether it was the last."""
        self.generated += 1
        self.has_news = True
        if token.cached is not None:
            self.cached = token.cached
        if self._keep_tokens:
            self._placed.append(Placed(token, self._offset))
        finish = token.finish
        text = "" if finish == "stop" and not self._include_stop else self._detokenizer.push(token.token)
        if finish is not None:
            text += self._detokenizer.flush()
        self._offset += len(text)
        shown, stop = self._stops.push(text)
        if stop is not None:
            self.finish_reason, self.stop_reason = "stop", stop
        elif finish is not None:
            shown += self._stops.flush()
            self.finish_reason = finish
            self.stop_reason = token.token if finish == "stop" else None
        self._text += shown
        return self.finish_reason is not None

    @property
    def ended(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    def take(self) -> tuple[str, list[Placed]]:
        """Text since the last call, and tokens where they are kept."""
        text, placed = self._text, self._placed
        self._text, self.has_news = "", False
        if placed:
            self._placed = []
        return text, placed


class Generation:
    """A context manager: whatever has not finished when it is left is aborted."""

    def __init__(
        self,
        client: EngineClient,
        outputs: Sequence[Output],
        on_first: Callable[[float], None] | None = None,
        on_interval: Callable[[float], None] | None = None,
    ) -> None:
        """Of each sequence, `on_first` is told when its first token comes, `on_interval` the seconds between tokens."""
        self.outputs = outputs
        self.reader: Callable[[], bool] | None = None
        """Called when there is news and more to come; true where it took the news, which `news` then does not hear of.

        It spares each token of a stream the waking of a task.
        """
        self._client = client
        self._on_first = on_first
        self._on_interval = on_interval
        self._news = asyncio.Event()
        self._over = asyncio.Event()

    def __enter__(self) -> Generation:
        try:
            for output in self.outputs:
                self._client.submit(output.submit, _Sink(self, output))
        except EngineDead:
            self._abort_rest()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.reader = None
        self._abort_rest()

    async def news(self) -> AsyncIterator[list[Output]]:
        """Outputs with something to `take`, until all have finished. Raises what the engine reports."""
        while True:
            await self._news.wait()
            self._news.clear()
            over = self._over.is_set()
            if changed := [output for output in self.outputs if output.has_news]:
                yield changed
            self._raise_error()
            if over:
                return

    async def finished(self) -> None:
        """Raises what the engine reports."""
        await self._over.wait()
        self._raise_error()

    def push(self, output: Output, token: Token, now: float) -> None:
        if output.ended:
            return
        if output.generated == 0:
            output.first_at = now
            if self._on_first is not None:
                self._on_first(now)
        elif self._on_interval is not None:
            self._on_interval(now - output.last_at)
        output.last_at = now
        if output.add(token):
            if token.finish is None:  # a stop string, which the engine does not know of
                self._client.abort([output.submit.id])
            if token.finish in ("abort", "error") or all(o.ended for o in self.outputs):
                self._over.set()

    def flush(self) -> None:
        if self.reader is None or self._over.is_set() or not self.reader():
            self._news.set()

    def fail(self, output: Output, error: OiError) -> None:
        if not output.ended:
            output.error = error
            self._over.set()
            self._news.set()

    def _raise_error(self) -> None:
        for output in self.outputs:
            if output.error is not None:
                raise output.error
            if output.finish_reason in ("abort", "error"):
                raise EngineDead("the engine gave this request up; send it again")

    def _abort_rest(self) -> None:
        self._client.abort([output.submit.id for output in self.outputs if not output.ended])


@dataclass(frozen=True, slots=True)
class _Sink:
    generation: Generation
    output: Output

    def push(self, token: Token, now: float) -> None:
        self.generation.push(self.output, token, now)

    def flush(self) -> None:
        self.generation.flush()

    def fail(self, error: OiError) -> None:
        self.generation.fail(self.output, error)
