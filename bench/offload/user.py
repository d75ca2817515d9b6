"""Whoever sends one engine requests of random tokens."""

from __future__ import annotations

import random
import time
from array import array
from dataclasses import dataclass

from oi.runtime.engine import Engine
from oi.runtime.messages import SamplingParams, Submit, TokenIds
from oi.runtime.runner import Runner

__all__ = ["Asked", "User"]

GREEDY = SamplingParams(temperature=0.0)


@dataclass
class Asked:
    """A request that ran to its end alone."""

    tokens: list[int]
    cached: int
    first: float
    """Seconds from its submission to its first token."""


class User:
    """Sends one engine requests of random tokens."""

    def __init__(self, runner: Runner) -> None:
        self.engine = Engine(runner)
        self.limits = runner.geometry
        self._rng = random.Random()
        self._next = 0

    def prompt(self, tokens: int) -> TokenIds:
        return array("i", self._rng.choices(range(self.limits.vocab_size), k=tokens))

    def submit(self, prompt: TokenIds, answer: int) -> int:
        self._next += 1
        self.engine.submit(Submit(self._next, prompt, GREEDY, answer))
        return self._next

    def ask(self, prompt: TokenIds, answer: int = 1) -> Asked:
        began, first, tokens, cached = time.perf_counter(), 0.0, [], 0
        self.submit(prompt, answer)
        while self.engine.has_work:
            for token in self.engine.step().tokens:
                first = first or time.perf_counter() - began
                tokens.append(token.token)
                cached += token.cached or 0
        return Asked(tokens, cached, first)

    def flush(self) -> None:
        """Fill the device with others' prompts."""
        left = int(self.limits.pages * self.limits.page_size * 1.1)
        while left > 0:
            size = min(4096, self.limits.max_model_len - 1)
            self.ask(self.prompt(size))
            left -= size
        self.settle()

    def settle(self) -> None:
        """All that is in flight lands."""
        exchange = self.engine.exchange
        assert exchange is not None
        while exchange.tier.waits:
            exchange.copies.wait()
            exchange.take(self.engine.scheduler)

    def findable(self, prompt: TokenIds) -> int:
        return (len(prompt) - 1) // self.limits.page_size * self.limits.page_size
