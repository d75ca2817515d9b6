"""The two libraries that run byte-level BPE, behind one small interface.

`tokenizers` is the reference: it reads every `tokenizer.json` and says what is wrong with one. `fastokens` gives the
same ids a hundred times faster, but takes longer to load and more memory; it is taken up once it has shown, on
`SAMPLE`, that it reads this tokenizer alike.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one text at a time: a thread pool would only cost memory
os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")

import tokenizers

from oi.runtime.errors import CheckpointError

__all__ = ["SAMPLE", "Bpe", "FastBpe", "ReferenceBpe", "load_fast"]

SAMPLE = (
    "It's 12 o'clock; we'LL see — naïve cafe\u0301s.\r\n\n\tdef f(x): return {'a': [1, 2.5e-3]}  # ok   \n"
    "Привет, мир! Γειά σου. שלום עולם, مرحبا ١٢٣, नमस्ते दुनिया, สวัสดี, ᄒ\u1161ᆫ글과 한국어, 日本語のテキスト、中文字符。"
    "👩‍👩‍👧‍👦🇩🇪🏽 ½ Ⅷ ﬃ Å\u0323\u0307 \u3000\u2028\u0085\u00a0\u200b\ufeff\x00\x1c <think>\n</think> <|not special|> "
    "                aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\n\n\n\n\n!!!!!!!!======-----_____\U0003293c\U0010ffff"
)
"""Text on which two implementations would differ if they read a tokenizer differently."""

_UNLOCKED_CHARACTERS = 1 << 15
"""fastokens lets other threads run while it encodes a text as long as this, and sets itself up in the first call."""


class Bpe(Protocol):
    """Safe to use from several threads. Tokens that the file calls special are plain text to it."""

    def encode(self, texts: list[str]) -> list[list[int]]: ...

    def token(self, id: int) -> str | None:
        """In the byte alphabet; None beyond the vocabulary."""
        ...


class ReferenceBpe:
    def __init__(self, path: Path) -> None:
        """Raises CheckpointError where the file is missing, damaged, or not byte-level."""
        try:
            self._bpe = tokenizers.Tokenizer.from_file(str(path))
        except Exception as e:  # the library raises plain Exception
            raise CheckpointError(
                f"{path} cannot be read as a tokenizer: {e}; is {path.parent} a complete checkpoint?"
            ) from e
        if not isinstance(self._bpe.decoder, tokenizers.decoders.ByteLevel):
            raise CheckpointError(f"{path} is not a byte-level BPE tokenizer, the only kind that Qwen3 has")
        self._bpe.encode_special_tokens = True

    def special_ids(self) -> dict[str, int]:
        """Control tokens: content → id."""
        added = self._bpe.get_added_tokens_decoder()
        return {token.content: id for id, token in added.items() if token.special}

    def encode(self, texts: list[str]) -> list[list[int]]:
        # encode_batch_fast computes no offsets and, unlike encode, lets other threads run meanwhile
        return [e.ids for e in self._bpe.encode_batch_fast(texts, add_special_tokens=False)]

    def token(self, id: int) -> str | None:
        return self._bpe.id_to_token(id)


class FastBpe:
    def __init__(self, path: Path) -> None:
        """Ready to encode when it returns. Raises ImportError without the library, ValueError where it cannot."""
        from fastokens._native import Tokenizer  # type: ignore[import-untyped]

        self._bpe = Tokenizer.from_file(str(path))
        self.encode([SAMPLE * (_UNLOCKED_CHARACTERS // len(SAMPLE) + 1)])

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [self._bpe.encode(text, split_special_tokens=True).ids for text in texts]

    def token(self, id: int) -> str | None:
        token: str | None = self._bpe.id_to_token(id)
        return token


def load_fast(path: Path) -> FastBpe | None:
    """None where the library is not there, or cannot read the file. For another thread: it takes a second or two."""
    try:
        return FastBpe(path)
    except (ImportError, ValueError, OSError):
        return None
