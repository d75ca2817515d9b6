"""Steps made by hand, without a scheduler: sequences with pages of their own, and any parts of them as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from oi.runtime.batch import Batch

__all__ = ["Pages", "Part", "Tokens", "make_batch"]


@dataclass
class Tokens:
    """A sequence whose tokens are all known ahead; `computed` of them are in the cache."""

    tokens: NDArray[np.int32]
    pages: list[int]
    computed: int = 0

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Part:
    """The next `count` tokens of a sequence, and which positions' logits are wanted."""

    sequence: Tokens
    count: int
    wanted: frozenset[int] | None = None
    """None: the last one."""


@dataclass
class Pages:
    """Page numbers in a random order, so that whoever ignores a page table fails."""

    total: int
    page_size: int
    seed: int | None = None
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._free = np.random.default_rng(self.seed).permutation(self.total).tolist()

    def sequence(self, tokens: NDArray[np.int32], shared: Sequence[int] = ()) -> Tokens:
        """A sequence that starts with the pages `shared`, which are computed."""
        count = -(-len(tokens) // self.page_size) - len(shared)
        assert count <= len(self._free), "too few pages: give the runner more"
        own, self._free = self._free[:count], self._free[count:]
        return Tokens(tokens, [*shared, *own], len(shared) * self.page_size)

    def give_back(self, sequence: Tokens) -> None:
        self._free += sequence.pages


def make_batch(parts: Sequence[Part], page_size: int, *, fed: bool = False) -> tuple[Batch, list[tuple[Tokens, int]]]:
    """One step of these parts, which count as computed from now on; and whose logits each row is: (sequence, position).

    With `fed`, every part is one token, and it is what the step before drew for it: the same row.
    """
    positions = [np.arange(p.sequence.computed, p.sequence.computed + p.count, dtype=np.int32) for p in parts]
    lens = np.array([p.count for p in parts], np.int32)
    starts = (np.cumsum(lens) - lens).astype(np.int32)
    widths = [-(-(p.sequence.computed + p.count) // page_size) for p in parts]
    table = np.full((len(parts), max(widths)), -1, np.int32)
    for row, part, width in zip(table, parts, widths, strict=True):
        row[:width] = part.sequence.pages[:width]
    slots = [row[at // page_size] * page_size + at % page_size for row, at in zip(table, positions, strict=True)]
    rows, asked = [], []
    for part, start, at in zip(parts, starts.tolist(), positions, strict=True):
        wanted = {int(at[-1])} if part.wanted is None else part.wanted & set(at.tolist())
        for position in sorted(wanted):
            rows.append(start + position - int(at[0]))
            asked.append((part.sequence, position))
    given = np.concatenate([p.sequence.tokens[at] for p, at in zip(parts, positions, strict=True)]).astype(np.int32)
    batch = Batch(
        tokens=-1 - np.arange(len(parts), dtype=np.int32) if fed else given,
        positions=np.concatenate(positions),
        slots=np.concatenate(slots).astype(np.int32),
        query_starts=starts,
        query_lens=lens,
        context_lens=np.array([p.sequence.computed + p.count for p in parts], np.int32),
        page_table=table,
        rows=np.array(rows, np.int32),
        sampling=None,
        want_logprobs=False,
    )
    for part in parts:
        part.sequence.computed += part.count
    return batch, asked
