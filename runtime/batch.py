"""From a schedule to the arrays of one step. Names and shapes are those of docs/architecture.md.

T tokens, S sequences, R rows sampled, P pages of the longest page table, E logit edits.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oi.runtime.sampling import uniform
from oi.runtime.sequence import DRAW, Sequence

__all__ = ["Batch", "SampleInputs", "Scheduled", "build_batch"]

_NO_PAGE = -1
"""Fills page tables behind a sequence's last page; no kernel may follow it."""


class Scheduled(NamedTuple):
    """A sequence's part in a step: its next `num_tokens` tokens; where those are all it has, the next one is drawn."""

    sequence: Sequence
    num_tokens: int
    samples: bool


@dataclass(frozen=True)
class SampleInputs:
    """What the `sample` program reads besides the logits; see ir/ops/sampling.py."""

    edit_starts: NDArray[np.int32]
    """[R]"""
    edit_lens: NDArray[np.int32]
    """[R]"""
    edit_tokens: NDArray[np.int32]
    """[E]"""
    edit_scale: NDArray[np.float32]
    """[E]"""
    edit_add: NDArray[np.float32]
    """[E]"""
    temperature: NDArray[np.float32]
    """[R]; 0 is greedy."""
    top_k: NDArray[np.int32]
    """[R]"""
    top_p: NDArray[np.float32]
    """[R]"""
    min_p: NDArray[np.float32]
    """[R]"""
    uniform: NDArray[np.float32]
    """[R], in [0, 1)."""


@dataclass(frozen=True)
class Batch:
    """All arrays are contiguous, of exactly these shapes, and this step's own."""

    tokens: NDArray[np.int32]
    """[T]. One below 0 is not known yet: -1 - r stands for the token that row r (an index into `rows`) of the step
    started just before draws. Only for runners that overlap; the device puts it in."""
    positions: NDArray[np.int32]
    """[T]"""
    slots: NDArray[np.int32]
    """[T]"""
    query_starts: NDArray[np.int32]
    """[S]"""
    query_lens: NDArray[np.int32]
    """[S]"""
    context_lens: NDArray[np.int32]
    """[S]"""
    page_table: NDArray[np.int32]
    """[S, P]; -1 behind a sequence's last page."""
    rows: NDArray[np.int32]
    """[R], rising; R may be 0."""
    sampling: SampleInputs | None
    """None: every row is greedy and has no edits."""
    want_logprobs: bool


def build_batch(schedule: SequenceOf[Scheduled], page_size: int) -> Batch:
    """The step's arrays; `schedule` has at least one entry, every part has at least one token."""
    computed = np.array([part.sequence.computed for part in schedule], np.int32)
    query_lens = np.array([part.num_tokens for part in schedule], np.int32)
    query_starts = np.cumsum(query_lens, dtype=np.int32) - query_lens
    page_table = _page_table(schedule)

    owner = np.repeat(np.arange(len(schedule), dtype=np.int32), query_lens)
    positions = np.arange(len(owner), dtype=np.int32) + (computed - query_starts)[owner]
    page, offset = np.divmod(positions, np.int32(page_size))
    samples = np.array([part.samples for part in schedule])
    drawn = [part.sequence for part in schedule if part.samples]
    return Batch(
        tokens=_tokens(schedule),
        positions=positions,
        slots=page_table[owner, page] * np.int32(page_size) + offset,
        query_starts=query_starts,
        query_lens=query_lens,
        context_lens=computed + query_lens,
        page_table=page_table,
        rows=(query_starts + query_lens - 1)[samples],
        sampling=_sample_inputs(drawn),
        want_logprobs=any(sequence.logprobs is not None for sequence in drawn),
    )


def _tokens(schedule: SequenceOf[Scheduled]) -> NDArray[np.int32]:
    tokens = array("i")
    for sequence, num_tokens, _ in schedule:
        known = sequence.tokens[sequence.computed : sequence.computed + num_tokens]
        tokens.extend(known)
        if len(known) < num_tokens:
            tokens.append(-1 - sequence.row)
    return np.frombuffer(tokens, np.int32)


def _page_table(schedule: SequenceOf[Scheduled]) -> NDArray[np.int32]:
    """Each row holds all pages of a sequence, shared ones in every row that reads them."""
    pages = [part.sequence.table.pages for part in schedule]
    lens = np.array([len(p) for p in pages], np.int32)
    width = int(lens.max())
    table = np.full((len(pages), width), _NO_PAGE, np.int32)
    table[np.arange(width, dtype=np.int32) < lens[:, None]] = np.frombuffer(b"".join(pages), np.int32)
    return table


def _sample_inputs(drawn: list[Sequence]) -> SampleInputs | None:
    draws = np.frombuffer(b"".join([sequence.draw for sequence in drawn]), DRAW)
    edits = [sequence.edits for sequence in drawn if sequence.edits is not None]
    if not any(edits) and not draws["temperature"].any():
        return None
    edit_lens = np.array([sequence.num_edits for sequence in drawn], np.int32)
    lengths = np.array([sequence.length for sequence in drawn], np.int32)
    return SampleInputs(
        edit_starts=np.cumsum(edit_lens, dtype=np.int32) - edit_lens,
        edit_lens=edit_lens,
        edit_tokens=np.concatenate([e.tokens for e in edits] or [np.empty(0, np.int32)]),
        edit_scale=np.concatenate([e.scale for e in edits] or [np.empty(0, np.float32)]),
        edit_add=np.concatenate([e.add for e in edits] or [np.empty(0, np.float32)]),
        temperature=draws["temperature"].copy(),
        top_k=draws["top_k"].copy(),
        top_p=draws["top_p"].copy(),
        min_p=draws["min_p"].copy(),
        uniform=uniform(draws["seed"], lengths),
    )
