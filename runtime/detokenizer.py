"""Tokens to text as they come: whole characters only, and never a piece of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from oi.runtime.tokenizer import Tokenizer

__all__ = ["Detokenizer", "StopMatcher"]

_Utf8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """The pieces it returns, joined, are the decoded text of all tokens. Each token is looked at once."""

    def __init__(self, tokenizer: Tokenizer, *, skip_specials: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_specials = skip_specials
        self._utf8 = _Utf8("replace")
        self._waits = False
        """Bytes of an unfinished character."""

    def push(self, token: int) -> str:
        """Text that this token completes; the bytes of an unfinished character wait."""
        if self._skip_specials and self._tokenizer.is_special(token):
            return ""
        if not self._waits and (text := self._tokenizer.token_text(token)) is not None:
            return text
        text = self._utf8.decode(self._tokenizer.token_bytes(token))
        self._waits = self._utf8.getstate()[0] != b""
        return text

    def flush(self) -> str:
        """At the end: what waits, as U+FFFD."""
        return self._utf8.decode(b"", final=True)


class StopMatcher:
    """Cuts text at the first stop string to be completed, whatever pieces the text comes in.

    Where two are completed by the same character, the longer one counts. Text that could be the beginning of a
    stop string is held back until it is known not to be.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        """`stops` are not empty strings. With `include_stop` the text ends after the stop string, not before."""
        self._stops = sorted(stops, key=len, reverse=True)
        self._fallbacks = [_fallbacks(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)  # characters of each stop that the text so far ends with
        self._include_stop = include_stop
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """(text to show, the stop string that ended it). Nothing may be pushed after a stop."""
        if not self._stops:
            return text, None
        buffer = self._held + text
        for i, char in enumerate(text, start=len(self._held) + 1):
            for s, stop in enumerate(self._stops):
                if self._advance(s, char) == len(stop):
                    return buffer[: i if self._include_stop else i - len(stop)], stop
        safe = len(buffer) - max(self._matched)
        self._held = buffer[safe:]
        return buffer[:safe], None

    def _advance(self, s: int, char: str) -> int:
        """Knuth-Morris-Pratt: one step, amortised."""
        stop, fallbacks, matched = self._stops[s], self._fallbacks[s], self._matched[s]
        while matched and stop[matched] != char:
            matched = fallbacks[matched - 1]
        self._matched[s] = matched = matched + (stop[matched] == char)
        return matched

    def flush(self) -> str:
        """At the end: what was held back."""
        held, self._held = self._held, ""
        return held


def _fallbacks(stop: str) -> list[int]:
    """For each prefix of `stop`: the length of its longest proper border."""
    borders = [0] * len(stop)
    length = 0
    for i in range(1, len(stop)):
        while length and stop[i] != stop[length]:
            length = borders[length - 1]
        length += stop[i] == stop[length]
        borders[i] = length
    return borders
