"""What users ask: prompts of all lengths, streamed and whole, sampled and greedy, chats and completions."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import msgspec

__all__ = ["LONGEST_PROMPT", "Mix", "Probe", "Request", "probes"]

LONGEST_PROMPT = 16384
_LONGEST_ANSWER = 128
_TEMPLATE_TOKENS = 64
"""Room for what a chat template adds."""

_CHATS = 0.4
_SHARING = 0.3
_PROBING = 0.1
_IMPATIENT = 0.065
"""Some of them are answered before they leave; about 5% of all are not."""

_PREFIXES = 8
_PROBES = 8
_PROBE_PROMPT = 2048
_PROBE_ANSWER = 64


@dataclass(frozen=True)
class Request:
    path: str
    body: bytes
    output: int
    """Tokens that must come."""
    streamed: bool
    patience: float | None = None
    """Where its user leaves early: after this share of the time that the same user's last request took."""
    probe: int | None = None
    """Which of the probes it is."""


@dataclass(frozen=True)
class Probe:
    """A greedy request whose answer alone is known."""

    prompt: str
    output: int


class Mix:
    """Random requests to a model that takes `max_model_len` tokens, of `words` of one token each.

    The same `seed` has the same shared prefixes. Raises ValueError where the model takes too few tokens.
    """

    def __init__(self, model: str, words: list[str], max_model_len: int, seed: int, probes: list[Probe]) -> None:
        self._model = model
        self._words = words
        self._probes = probes
        self.longest_answer = min(_LONGEST_ANSWER, max_model_len // 4)
        self.longest_prompt = longest_prompt(max_model_len)
        shared = random.Random(f"{seed} prefixes")
        self._prefixes = [shared.choices(words, k=log_uniform(self.longest_prompt, shared)) for _ in range(_PREFIXES)]

    @property
    def probes(self) -> int:
        """How many there are."""
        return len(self._probes)

    def draw(self, chance: random.Random) -> Request:
        patience = chance.random() if chance.random() < _IMPATIENT else None
        streamed = chance.random() < 0.5
        if self._probes and chance.random() < _PROBING:
            number = chance.randrange(len(self._probes))
            return self.ask(number, streamed=streamed, patience=patience)
        output = chance.randint(1, self.longest_answer)
        chat = chance.random() < _CHATS
        path = "/v1/chat/completions" if chat else "/v1/completions"
        asked = {"messages": self._messages(chance)} if chat else {"prompt": "".join(self._prompt(chance))}
        body = self._body(streamed, output, **asked, **_sampling(chance), **_logprobs(chat, chance))
        return Request(path, body, output, streamed, patience)

    def ask(self, number: int, *, streamed: bool, patience: float | None = None) -> Request:
        """One of the probes."""
        probe = self._probes[number]
        body = self._body(streamed, probe.output, prompt=probe.prompt, temperature=0, return_token_ids=True)
        return Request("/v1/completions", body, probe.output, streamed, patience, number)

    def _body(self, streamed: bool, output: int, **more: Any) -> bytes:
        body = {"model": self._model, "max_tokens": output, "ignore_eos": True, "stream": streamed, **more}
        if streamed:
            body["stream_options"] = {"include_usage": True}
        return msgspec.json.encode(body)

    def _prompt(self, chance: random.Random) -> list[str]:
        """Some begin as others do, and go on for themselves."""
        length = log_uniform(self.longest_prompt, chance)
        begin = chance.choice(self._prefixes)[: length - 1] if chance.random() < _SHARING else []
        return begin + chance.choices(self._words, k=length - len(begin))

    def _messages(self, chance: random.Random) -> list[dict[str, str]]:
        """A question, or a conversation that goes on with one."""
        words = self._prompt(chance)
        turns = min(chance.choice([1, 1, 3, 5]), len(words))
        cuts = [len(words) * i // turns for i in range(turns + 1)]
        roles = ("user", "assistant")
        return [
            {"role": roles[i % 2], "content": "".join(words[a:b])} for i, (a, b) in enumerate(itertools.pairwise(cuts))
        ]


def probes(words: list[str], max_model_len: int, chance: random.Random) -> list[Probe]:
    """Of lengths from a few tokens to some pages."""
    longest = min(_PROBE_PROMPT, longest_prompt(max_model_len))
    lengths = [round(longest ** ((i + 1) / _PROBES)) for i in range(_PROBES)]
    return [Probe("".join(chance.choices(words, k=n)), min(_PROBE_ANSWER, max_model_len // 4)) for n in lengths]


def longest_prompt(max_model_len: int) -> int:
    """Raises ValueError where there is no room for any."""
    longest = min(LONGEST_PROMPT, max_model_len - min(_LONGEST_ANSWER, max_model_len // 4) - _TEMPLATE_TOKENS)
    if longest < 1:
        raise ValueError(f"the server takes {max_model_len} tokens; give it a --max-model-len of 128 at least")
    return longest


def log_uniform(longest: int, chance: random.Random) -> int:
    """1 to `longest`, as often from each power of two to the next."""
    return min(longest, int((longest + 1) ** chance.random()))


def _sampling(chance: random.Random) -> dict[str, Any]:
    """Greedy in half of all cases; penalties with either."""
    sampled: dict[str, Any] = {"temperature": 0}
    if chance.random() < 0.5:
        sampled["temperature"] = round(chance.uniform(0.2, 1.5), 2)
        sampled |= _some(chance, 0.4, top_p=round(chance.uniform(0.5, 1), 2), top_k=chance.randint(1, 100), min_p=0.05)
        sampled |= _some(chance, 0.3, seed=chance.randrange(1 << 31))
    return sampled | _some(chance, 0.1, repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=0.3)


def _logprobs(chat: bool, chance: random.Random) -> dict[str, Any]:
    if chance.random() >= 0.1:
        return {}
    alternatives = chance.randrange(21)
    return {"logprobs": True, "top_logprobs": alternatives} if chat else {"logprobs": alternatives}


def _some(chance: random.Random, share: float, **fields: Any) -> dict[str, Any]:
    """Each of `fields` in this share of all cases."""
    return {name: value for name, value in fields.items() if chance.random() < share}
