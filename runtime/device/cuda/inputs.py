"""A step's inputs in one block, packed for the bucket of its graph, so that a single copy brings them to the GPU.

The block is a row of 32-bit words; the host's pinned copies of it and the GPU's have the same layout:

    step      rows, table_width, then [S], then [T], then page_table, whose end is this step's only variable size
    sample    the inputs of `sample`, [R] each

All buckets share the block. Every array begins at a multiple of 64 bytes; `rows` comes first, because the rows' part
of `forward` is one graph for all buckets of tokens. Edits, of which there may be very many and are mostly none, have
a block of their own (steps.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oi.runtime.batch import Batch, SampleInputs

__all__ = ["EDITS", "NO_INPUTS", "PER_ROW", "STEP", "InputBlock", "Layout", "fill_sample", "fill_step"]

Words = NDArray[np.int32]

_ALIGN = 16
"""Words."""

_PAD = {"slots": -1}
"""All others are padded with 0."""

_SEQUENCES = ("query_starts", "query_lens", "context_lens")
_TOKENS = ("tokens", "positions", "slots")
STEP = ("rows", *_SEQUENCES, *_TOKENS, "page_table")
"""Names as in docs/architecture.md; `table_width` belongs to this device."""
PER_ROW = ("edit_starts", "edit_lens", "temperature", "top_k", "top_p", "min_p", "uniform")
EDITS = ("edit_tokens", "edit_scale", "edit_add")
"""PER_ROW and EDITS are those of ir/ops/sampling.py."""


@dataclass(frozen=True)
class Layout:
    """A bucket's arrays, in 32-bit words from the block's start."""

    arrays: dict[str, tuple[int, int]]
    """Where each begins, and how many words it has."""
    end: int
    """Behind those arrays whose size is the bucket's."""

    @classmethod
    def after(cls, start: int, sizes: dict[str, int]) -> Layout:
        arrays = {}
        for name, size in sizes.items():
            arrays[name] = (start, size)
            start += -(-size // _ALIGN) * _ALIGN
        return cls(arrays, start)

    def begin(self, name: str) -> int:
        return self.arrays[name][0]

    def fill(self, words: Words, source: Any, names: tuple[str, ...]) -> None:
        """Each named array from the attribute of that name, as bits, padded to the bucket."""
        for name in names:
            begin, size = self.arrays[name]
            array = getattr(source, name)
            middle = begin + array.size
            words[begin:middle] = array.view(np.int32)
            words[middle : begin + size] = _PAD.get(name, 0)


NO_INPUTS = Layout({}, 0)


class InputBlock:
    """The layouts of all buckets in one block of `words` 32-bit words."""

    def __init__(self, tokens: int, sequences: int, table: int) -> None:
        """The largest step: tokens, sequences (and rows), page table entries."""
        self._sequences = sequences
        self._sample = max(self.forward(tokens).end, self.decode(sequences).end) + -(-table // _ALIGN) * _ALIGN
        self.words = self.sample(sequences).end

    def forward(self, tokens: int) -> Layout:
        """Of `forward` for this bucket of tokens."""
        sizes = {"rows": self._sequences, "table_width": 1, **dict.fromkeys(_SEQUENCES, self._sequences)}
        return _with_table({**sizes, **dict.fromkeys(_TOKENS, tokens)})

    def decode(self, rows: int) -> Layout:
        """Of `decode` for this bucket, where every sequence has one token and each is sampled."""
        return _with_table({"table_width": 1, **dict.fromkeys((*_SEQUENCES, *_TOKENS), rows)})

    @property
    def rows(self) -> Layout:
        """What the rows' part of `forward` reads."""
        return Layout.after(0, {"rows": self._sequences})

    def sample(self, rows: int) -> Layout:
        """Of `sample` for this bucket, but for its edits."""
        return Layout.after(self._sample, dict.fromkeys(PER_ROW, rows))


def _with_table(sizes: dict[str, int]) -> Layout:
    layout = Layout.after(0, sizes)
    return Layout({**layout.arrays, "page_table": (layout.end, 0)}, layout.end)


def fill_step(words: Words, layout: Layout, batch: Batch) -> int:
    """Write a step's inputs; returns how many words of the block, from its start, are to be copied."""
    if "rows" in layout.arrays:
        layout.fill(words, batch, ("rows",))
    layout.fill(words, batch, _SEQUENCES)
    layout.fill(words, batch, _TOKENS)
    table = batch.page_table
    words[layout.begin("table_width")] = table.shape[1]
    end: int = layout.end + table.size
    words[layout.end : end] = table.reshape(-1)
    return end


def fill_sample(words: Words, layout: Layout, sampling: SampleInputs) -> tuple[int, int]:
    """Write what `sample` reads of every row; returns the first word to be copied, and how many."""
    layout.fill(words, sampling, PER_ROW)
    begin = layout.begin(PER_ROW[0])
    return begin, layout.end - begin
