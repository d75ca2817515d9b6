"""The last step of training: the folder that was written, read back as anyone would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from .network import Network
from .train import CONTEXT, evaluate

_PROMPTS = (
    "def fibonacci(n):\n",
    "import os\nimport sys\n\n\ndef main():\n",
    "class Queue:\n    def __init__(self, maxsize=0):\n",
    'def read_lines(path):\n    """Return the lines of a text file."""\n    with open(',
    "class TestCounter(unittest.TestCase):\n    def test_update(self):\n",
)
_QUESTIONS = ("Write a Python function that returns the larger of two numbers.", "Write a Python function read_file.")


def check(folder: Path, network: Network, held_out: Tensor, device: str) -> list[dict[str, str]]:
    """Load the folder with transformers, compare its loss with `network`'s, and return samples."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    text = 'def f(x):\n\treturn f"{x!r} \u2260 \u00e9 \u4f60\u597d \U0001f600"\n<|im_end|>'
    ids = tokenizer(text)["input_ids"]
    assert ids == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids, "tokenizers disagree"
    assert tokenizer.decode(ids) == text, "the tokenizer does not round-trip"

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.to(device).eval()
    row = held_out[: CONTEXT + 1]
    with torch.no_grad():
        theirs = functional.cross_entropy(model(row[None, :-1]).logits[0], row[1:]).item()
    ours = evaluate(network, row, exact=True)
    assert abs(ours - theirs) < 1e-2, f"the saved model's loss is {theirs}, the trained one's {ours}"
    print(f"reloaded: loss {theirs:.5f} (trained {ours:.5f})")
    chats = [[{"role": "user", "content": q}] for q in _QUESTIONS]
    prompts = [
        *_PROMPTS,
        *(tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats),
    ]
    samples = [
        {"prompt": p, "greedy": _generate(model, tokenizer, p, False), "sampled": _generate(model, tokenizer, p, True)}
        for p in prompts
    ]
    for sample in samples:
        print("\n".join(f"--- {name}\n{text}" for name, text in sample.items()))
    return samples


def _generate(model: Any, tokenizer: Any, prompt: str, sampled: bool) -> str:
    """Up to 128 tokens: greedy, or sampled as `generation_config.json` says."""
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    how = {} if sampled else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    ids = model.generate(**inputs, max_new_tokens=128, **how)
    text: str = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])
    return text
