"""From a request's fields to what the engine is asked for. Fields that are left out take the checkpoint's defaults."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from oi.runtime.errors import RequestError
from oi.runtime.generation import TextOptions
from oi.runtime.generation_config import GenerationConfig
from oi.runtime.http.protocol import SharedFields
from oi.runtime.messages import Ready, SamplingParams, Submit, TokenIds

__all__ = ["Limits", "check_ids", "check_prompt", "max_tokens_for", "sampling_params", "submits", "text_options"]

_SEEDS = 1 << 63


@dataclass(frozen=True)
class Limits:
    """What the engine said it can do."""

    max_model_len: int
    vocab_size: int

    @staticmethod
    def of(ready: Ready) -> Limits:
        return Limits(ready.max_model_len, ready.vocab_size)


def check_prompt(prompt: Sequence[int], limits: Limits, param: str) -> None:
    """Raises RequestError where no token can be generated after it."""
    if not prompt:
        raise RequestError("the prompt is empty; give at least one token", param)
    if len(prompt) >= limits.max_model_len:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens; at most {limits.max_model_len - 1} fit this server's context of "
            f"{limits.max_model_len} with one to generate; shorten it",
            param,
        )


def max_tokens_for(prompt: Sequence[int], asked: int | None, limits: Limits, param: str) -> int:
    """The rest of the context where nothing is asked for. Raises RequestError where more is asked than fits."""
    room = limits.max_model_len - len(prompt)
    if asked is not None and asked > room:
        raise RequestError(
            f"`{param}` is {asked}, but after the prompt's {len(prompt)} tokens {room} are left of this server's "
            f"context of {limits.max_model_len}; ask for at most {room}, or shorten the prompt",
            param,
        )
    return room if asked is None else asked


def sampling_params(body: SharedFields, defaults: GenerationConfig, limits: Limits) -> SamplingParams:
    """Raises RequestError where `logit_bias` names ids that the model does not have."""
    bias = body.logit_bias or {}
    check_ids(bias, limits, "logit_bias")
    given = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
    }
    chosen = defaults.sampling | {name: value for name, value in given.items() if value is not None}
    chosen["top_k"] = max(0, int(chosen.get("top_k", 0)))
    seed = random.getrandbits(63) if body.seed is None else body.seed % _SEEDS
    return SamplingParams(**chosen, logit_bias=bias, seed=seed)  # type: ignore[arg-type]  # each by its own name


def text_options(body: SharedFields, logprobs: int | None) -> TextOptions:
    return TextOptions(
        keep_tokens=logprobs is not None or bool(body.return_token_ids),
        stops=[body.stop] if isinstance(body.stop, str) else tuple(body.stop or ()),
        include_stop=bool(body.include_stop_str_in_output),
        skip_specials=body.skip_special_tokens is not False,
    )


def submits(
    body: SharedFields,
    prompts: Sequence[TokenIds],
    max_tokens: Sequence[int],
    logprobs: int | None,
    defaults: GenerationConfig,
    limits: Limits,
) -> list[Submit]:
    """For each prompt, `n` sequences that differ in their seed. Ids are 0: who submits them gives them theirs."""
    sampling = sampling_params(body, defaults, limits)
    check_ids(body.stop_token_ids or (), limits, "stop_token_ids")
    stop_ids = [*(body.stop_token_ids or ()), *(() if body.ignore_eos else defaults.eos_ids)]
    return [
        Submit(
            id=0,
            prompt=prompt,
            sampling=_with_seed(sampling, (sampling.seed + choice) % _SEEDS),
            max_tokens=room,
            stop_token_ids=stop_ids,
            logprobs=logprobs,
            salt=body.cache_salt or "",
        )
        for prompt, room in zip(prompts, max_tokens, strict=True)
        for choice in range(body.n or 1)
    ]


def _with_seed(sampling: SamplingParams, seed: int) -> SamplingParams:
    return msgspec.structs.replace(sampling, seed=seed)


def check_ids(ids: Sequence[int] | dict[int, float], limits: Limits, param: str) -> None:
    """Raises RequestError where one of a client's token ids is not the model's."""
    if ids and max(ids) >= limits.vocab_size:
        raise RequestError(
            f"`{param}` holds token id {max(ids)}; the model's ids end at {limits.vocab_size - 1}", param
        )
