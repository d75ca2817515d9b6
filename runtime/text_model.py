"""A checkpoint without its weights: what turns text into tokens, and tokens into text."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from oi.runtime.bpe import FastBpe, load_fast
from oi.runtime.chat_template import ChatTemplate, load_chat_template
from oi.runtime.errors import RequestError
from oi.runtime.generation_config import GenerationConfig
from oi.runtime.tokenizer import Tokenizer

__all__ = ["Loading", "TextModel", "begin_loading"]


@dataclass(frozen=True)
class TextModel:
    tokenizer: Tokenizer
    template: ChatTemplate | None
    generation: GenerationConfig

    @staticmethod
    def load(folder: Path) -> TextModel:
        """Raises CheckpointError."""
        tokenizer = Tokenizer(folder)
        generation = GenerationConfig.load(folder, tokenizer.special_ids)
        template = load_chat_template(folder, tokenizer)
        if template is not None:
            with contextlib.suppress(RequestError):  # what is set up with the first conversation is set up now
                template.encode([{"role": "user", "content": "x"}])
        return TextModel(tokenizer, template, generation)


class Loading(NamedTuple):
    model: Future[TextModel]
    fast: Future[FastBpe | None]
    """For `model.tokenizer.take_up`."""


def begin_loading(folder: Path) -> Loading:
    """One after the other, on a thread of its own that ends with them, and with it what the libraries keep for it."""
    executor = ThreadPoolExecutor(1, "load")
    model = executor.submit(TextModel.load, folder)
    fast = executor.submit(load_fast, folder / "tokenizer.json")
    executor.shutdown(wait=False)
    return Loading(model, fast)
