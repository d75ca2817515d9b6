"""Text to token ids and token ids to bytes, for byte-level BPE tokenizers in Hugging Face's `tokenizer.json`."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from oi.runtime.bpe import SAMPLE, Bpe, FastBpe, ReferenceBpe
from oi.runtime.errors import RequestError
from oi.runtime.memory import give_back
from oi.runtime.messages import TokenIds
from oi.runtime.segments import SegmentCache

__all__ = ["Tokenizer"]

_CACHE_BYTES = 8 << 20
_QUICK_CHARACTERS = {False: 4096, True: 1 << 18}
"""What `encode` takes about 2 ms for: with the reference, and with the fast library."""


class Tokenizer:
    """A checkpoint's tokenizer. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where `tokenizer.json` is missing, damaged, or not byte-level."""
        reference = ReferenceBpe(folder / "tokenizer.json")
        self._bpe: Bpe = reference
        self.fast = False
        """Whether `take_up` has been of use."""
        self.special_ids = reference.special_ids()
        """Control tokens: content → id."""
        self._special_id_set = frozenset(self.special_ids.values())
        self._specials = _any_of(self.special_ids)
        self._special_begins = {content[:1] for content in self.special_ids}
        self._segments = SegmentCache(_CACHE_BYTES)
        self._bytes: dict[int, bytes] = {}
        self._texts: dict[int, str | None] = {}
        give_back()  # half of what the load took

    def take_up(self, fast: FastBpe) -> None:
        """Change over to it, if it gives the same ids. `runtime/memory.py` can then give back what the other held."""
        if fast.encode([SAMPLE]) == self._bpe.encode([SAMPLE]):
            self._bpe, self.fast = fast, True

    @property
    def quick_characters(self) -> int:
        """Texts up to this length are encoded at once; longer ones would hold up an event loop."""
        return _QUICK_CHARACTERS[self.fast]

    def encode(self, text: str, *, specials: bool = True) -> TokenIds:
        """Token ids. Special tokens written in the text are control tokens, or plain text without `specials`.

        Raises RequestError where the text holds half of a surrogate pair, which no tokenizer has a token for.
        """
        return self.encode_parts(self.split_specials(text) if specials else [text])

    def split_specials(self, text: str) -> list[str]:
        """`text` cut at special tokens: text, special, text, special, …, text."""
        if self._specials is None or not any(begin in text for begin in self._special_begins):
            return [text]
        return self._specials.split(text)

    def holds_special(self, text: str) -> bool:
        return self._specials is not None and self._specials.search(text) is not None

    def encode_parts(self, parts: list[str]) -> TokenIds:
        """Token ids of what `split_specials` gives: every odd part is a control token, every even one text.

        Raises RequestError as `encode` does.
        """
        texts = parts[::2]
        known = {text: self._segments.get(text) for text in texts if text}
        fresh = [text for text, ids in known.items() if ids is None]
        for text, encoded in zip(fresh, self._encode(fresh), strict=True):
            known[text] = ids = array("i", encoded)
            self._segments.put(text, ids)
        all = array("i", known.get(texts[0]) or ())
        for special, text in zip(parts[1::2], texts[1:], strict=True):
            all.append(self.special_ids[special])
            all.extend(known.get(text) or ())
        return all

    def _encode(self, texts: list[str]) -> list[list[int]]:
        try:
            return self._bpe.encode(texts) if texts else []
        except (UnicodeEncodeError, TypeError) as e:  # the one and the other library's, for what is not Unicode
            raise RequestError("the text holds half of a surrogate pair, which is no character; send whole ones") from e

    def is_special(self, id: int) -> bool:
        return id in self._special_id_set

    def token_bytes(self, id: int) -> bytes:
        """The bytes a token stands for; empty for ids beyond the vocabulary (models pad theirs)."""
        found = self._bytes.get(id)
        if found is None:
            found = self._bytes[id] = _bytes_of(self._bpe.token(id) or "")
        return found

    def token_text(self, id: int) -> str | None:
        """The text a token stands for; None where its bytes are not whole characters."""
        try:
            return self._texts[id]
        except KeyError:
            return self._texts.setdefault(id, _text_of(self.token_bytes(id)))

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


def _text_of(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


@cache
def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's characters: printable Latin-1 stands for itself, other bytes for U+0100 and on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
