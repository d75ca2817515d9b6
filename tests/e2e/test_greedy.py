"""The bundled model's greedy text is Hugging Face's, token for token, whatever else the engine is doing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from oi.runtime.artifact import open_artifact
from oi.runtime.engine import Engine
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.step import open_runner

GENERATED = 64
PROMPTS = [
    "def fibonacci(n):\n",
    "import os\nimport sys\n\n\ndef main():\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "for i in range(10):\n    print(",
    "# Return the largest element of the list\n",
    "try:\n    import json\nexcept ImportError:\n",
    'def read_file(path):\n    """Read a whole text file."""\n    with open(',
    "if __name__ == '__main__':\n",
    "class TestDict(unittest.TestCase):\n    def test_",
    "async def fetch(session, url):\n    async with ",
    "def __repr__(self):\n    return ",
    "raise ValueError(",
    "x = [int(line) for line in ",
    "from collections import ",
    "    def __enter__(self):\n        return self\n\n    def __exit__(self, ",
    "while True:\n    data = sock.recv(",
    "lambda x: ",
    "def quicksort(a):\n    if len(a) <= 1:\n        return a\n",
    "@property\ndef name(self):\n",
    "import re\n\n_pattern = re.compile(r'",
    "π = 3.14159  # ünïcödé 漢字 🎉\n",
    "assert isinstance(" * 30,
]


@pytest.fixture(scope="module")
def prompts(bundled: Path) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(bundled / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in PROMPTS]


@pytest.fixture(scope="module")
def expected(bundled: Path, prompts: list[list[int]]) -> list[list[int]]:
    """Hugging Face's continuations, in float32 arithmetic on the bf16 weights, as oi's CPU target computes."""
    model = AutoModelForCausalLM.from_pretrained(bundled, dtype=torch.float32).eval()
    out = []
    for prompt in prompts:
        ids = model.generate(
            torch.tensor([prompt]), do_sample=False, min_new_tokens=GENERATED, max_new_tokens=GENERATED, eos_token_id=-1
        )
        out.append(ids[0, len(prompt) :].tolist())
    return out


@pytest.fixture(scope="module")
def engine_with(bundled: Path, bundled_artifact: Path) -> Callable[..., Engine]:
    def make(**settings: int) -> Engine:
        return Engine(open_runner(EngineSettings(str(bundled_artifact), str(bundled), **settings)))

    return make


def generate(engine: Engine, prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Run all prompts at once to their end; returns their tokens, and how many of each prompt were cached."""
    for i, prompt in enumerate(prompts):
        engine.submit(Submit(i, prompt, SamplingParams(temperature=0.0), max_tokens=GENERATED))
    tokens: list[list[int]] = [[] for _ in prompts]
    cached = [0] * len(prompts)
    while engine.has_work:
        for token in engine.step().tokens:
            tokens[token.id].append(token.token)
            cached[token.id] += token.cached or 0
    engine.scheduler.check()
    return tokens, cached


def test_alone(engine_with: Callable[..., Engine], prompts: list[list[int]], expected: list[list[int]]) -> None:
    engine = engine_with()
    assert [generate(engine, [prompt])[0][0] for prompt in prompts] == expected


def test_batched(engine_with: Callable[..., Engine], prompts: list[list[int]], expected: list[list[int]]) -> None:
    assert generate(engine_with(), prompts)[0] == expected


@pytest.mark.parametrize("budget", [23, 37])
def test_chunked_at_odd_sizes(
    engine_with: Callable[..., Engine], prompts: list[list[int]], expected: list[list[int]], budget: int
) -> None:
    assert generate(engine_with(max_step_tokens=budget), prompts)[0] == expected


def test_cached_prefix(engine_with: Callable[..., Engine], prompts: list[list[int]], expected: list[list[int]]) -> None:
    engine = engine_with()
    generate(engine, prompts)
    longer = [prompt + tokens[:40] for prompt, tokens in zip(prompts, expected, strict=True)]
    tokens, cached = generate(engine, longer)
    assert all(0 < found < len(prompt) for found, prompt in zip(cached, longer, strict=True))
    assert [found[: GENERATED - 40] for found in tokens] == [tokens[40:] for tokens in expected]


def test_preemption_and_eviction(
    engine_with: Callable[..., Engine], bundled_artifact: Path, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    """Pages for about two of the longest sequences: most are preempted, and cached prefixes are evicted."""
    longest = max(map(len, prompts)) + GENERATED
    kv = open_artifact(bundled_artifact).manifest.kv
    pages = 2 * -(-longest // kv.page_size) + 3
    engine = engine_with(max_model_len=longest, kv_bytes=pages * kv.page_bytes)
    assert generate(engine, prompts)[0] == expected
    assert engine.stats().preemptions > 0
