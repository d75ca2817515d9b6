"""Prompts have exactly as many tokens as asked for, and none is like another."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bench.serve import prompts

_BUNDLED = Path(__file__).parents[2] / "models" / "tiny"


def test_text_has_exactly_so_many_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(_BUNDLED / "tokenizer.json"))
    words = prompts.vocabulary(_BUNDLED, as_ids=False)
    for n in (1, 2, 17, 300, 3000):
        body = json.loads(prompts.body("m", words, n, 1, random.SystemRandom()))
        assert len(tokenizer.encode(body["prompt"]).ids) == n


def test_ids_are_of_the_same_words() -> None:
    tokenizer = Tokenizer.from_file(str(_BUNDLED / "tokenizer.json"))
    ids = prompts.vocabulary(_BUNDLED, as_ids=True)
    assert [tokenizer.decode([id]) for id in ids] == prompts.vocabulary(_BUNDLED, as_ids=False)
    assert len(set(ids)) == len(ids) >= 100
    body = json.loads(prompts.body("m", ids, 40, 1, random.SystemRandom()))
    assert len(body["prompt"]) == 40
    assert set(body["prompt"]) <= set(ids)


def test_fresh_prompts_share_no_page() -> None:
    words = prompts.vocabulary(_BUNDLED, as_ids=True)
    pages = [tuple(json.loads(prompts.body("m", words, 16, 1, random.SystemRandom()))["prompt"]) for _ in range(500)]
    assert len(set(pages)) == 500


def test_text_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    assert prompts.vocabulary(None, as_ids=True)
    with pytest.raises(SystemExit, match="--prompts ids"):
        prompts.vocabulary(None, as_ids=False)
    with pytest.raises(SystemExit, match=r"tokenizer\.json"):
        prompts.vocabulary(tmp_path, as_ids=False)
