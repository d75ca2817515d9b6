"""Random prompts of an exact number of tokens, no two alike."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

__all__ = ["Vocabulary", "body", "vocabulary"]

_WORD = re.compile("Ġ[A-Za-z]{2,}")
_ENOUGH_WORDS = 4000
_ANY_IDS = range(100, 1000)
"""Ordinary tokens of every byte-level BPE."""

Vocabulary = list[str] | list[int]
"""Words of one token each, wherever they stand after one another; or token ids."""


def vocabulary(checkpoint: Path | None, *, as_ids: bool) -> Vocabulary:
    """What prompts are drawn from. Text needs the checkpoint's tokenizer; if it is there, ids are of the same words.

    Raises SystemExit where there is no such tokenizer.
    """
    if checkpoint is None:
        if not as_ids:
            raise SystemExit("text prompts of an exact length need a tokenizer: give --model DIR, or --prompts ids")
        return list(_ANY_IDS)
    file = checkpoint / "tokenizer.json"
    if not file.is_file():
        raise SystemExit(f"{checkpoint.name} has no tokenizer.json; --model must be a checkpoint's folder")
    words = _words(Tokenizer.from_file(str(file)))
    return list(words.values()) if as_ids else list(words)


def _words(tokenizer: Tokenizer) -> dict[str, int]:
    """ " word" → its id, of those that a tokenizer splits off from what stands before and after."""
    found: dict[str, int] = {}
    for token, id in sorted(tokenizer.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1]):
        if _WORD.fullmatch(token):
            word = " " + token[1:]
            if tokenizer.encode(word, add_special_tokens=False).ids == [id]:
                found[word] = id
                if len(found) == _ENOUGH_WORDS:
                    break
    if len(found) < 100:
        raise SystemExit("the tokenizer has too few words of one token; use --prompts ids")
    return found


def body(model: str | None, words: Vocabulary, tokens: int, output: int, chance: random.Random) -> bytes:
    """A request for exactly `output` tokens after a fresh prompt of exactly `tokens` tokens; None is any model."""
    drawn: list[Any] = chance.choices(words, k=tokens)
    return msgspec.json.encode(
        {
            "model": model,
            "prompt": "".join(drawn) if isinstance(words[0], str) else drawn,
            "max_tokens": output,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
