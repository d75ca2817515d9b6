"""Text to token ids and token ids to bytes, for byte-level BPE tokenizers in Hugging Face's `tokenizer.json`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one text at a time: a thread pool would only cost memory

import tokenizers

from oi.runtime.errors import CheckpointError

__all__ = ["Tokenizer"]


class Tokenizer:
    """A checkpoint's tokenizer. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where `tokenizer.json` is missing, damaged, or not byte-level."""
        path = folder / "tokenizer.json"
        try:
            self._bpe = tokenizers.Tokenizer.from_file(str(path))
        except Exception as e:  # the library raises plain Exception
            raise CheckpointError(
                f"{path} cannot be read as a tokenizer: {e}; is {folder} a complete checkpoint?"
            ) from e
        if not isinstance(self._bpe.decoder, tokenizers.decoders.ByteLevel):
            raise CheckpointError(f"{path} is not a byte-level BPE tokenizer, the only kind that Qwen3 has")
        self._bpe.encode_special_tokens = True  # `encode` cuts special tokens out itself, where they are wanted
        added = self._bpe.get_added_tokens_decoder()
        self.special_ids = {token.content: id for id, token in added.items() if token.special}
        """Control tokens: content → id."""
        self._special_id_set = frozenset(self.special_ids.values())
        self._specials = _any_of(self.special_ids)
        self._bytes: dict[int, bytes] = {}

    def encode(self, text: str, *, specials: bool = True) -> list[int]:
        """Token ids. Special tokens written in the text are control tokens, or plain text without `specials`."""
        return self.encode_parts(self.split_specials(text) if specials else [text])

    def split_specials(self, text: str) -> list[str]:
        """`text` cut at special tokens: text, special, text, special, …, text."""
        return [text] if self._specials is None else self._specials.split(text)

    def encode_parts(self, parts: list[str]) -> list[int]:
        """Token ids of what `split_specials` gives: every odd part is a control token, every even one text."""
        ids = self._encode_all(parts[::2])
        for between, special in zip(ids, parts[1::2], strict=False):
            between.append(self.special_ids[special])
        return [id for part in ids for id in part]

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        # encode_batch_fast computes no offsets and, unlike encode, lets other threads run meanwhile
        return [e.ids for e in self._bpe.encode_batch_fast(texts, add_special_tokens=False)]

    def is_special(self, id: int) -> bool:
        return id in self._special_id_set

    def token_bytes(self, id: int) -> bytes:
        """The bytes a token stands for; empty for ids beyond the vocabulary (models pad theirs)."""
        found = self._bytes.get(id)
        if found is None:
            found = self._bytes[id] = _bytes_of(self._bpe.id_to_token(id) or "")
        return found

    def decode(self, ids: Iterable[int], *, skip_specials: bool = True) -> str:
        """The text; bytes that are not UTF-8 become U+FFFD."""
        kept = (id for id in ids if not (skip_specials and self.is_special(id)))
        return b"".join(map(self.token_bytes, kept)).decode("utf-8", "replace")


def _any_of(contents: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(contents, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None


def _bytes_of(token: str) -> bytes:
    alphabet = _byte_alphabet()
    try:
        return bytes(alphabet[char] for char in token)
    except KeyError:  # an added token with characters beyond the alphabet stands for itself
        return token.encode()


@cache
def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's characters: printable Latin-1 stands for itself, other bytes for U+0100 and on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
