"""From a schedule to the arrays of one step. Names and shapes are those of docs/architecture.md.

T tokens, S sequences, R rows sampled, P pages of the longest context, E logit edits.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oi.runtime.sampling import uniform
from oi.runtime.sequence import Sequence

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
    context_lens = computed + query_lens
    page_table = _page_table(schedule, context_lens, page_size)

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
        context_lens=context_lens,
        page_table=page_table,
        rows=(query_starts + query_lens - 1)[samples],
        sampling=_sample_inputs(drawn),
        want_logprobs=any(sequence.logprobs is not None for sequence in drawn),
    )


def _tokens(schedule: SequenceOf[Scheduled]) -> NDArray[np.int32]:
    tokens = array("i")
    for sequence, num_tokens, _ in schedule:
        tokens.extend(sequence.tokens[sequence.computed : sequence.computed + num_tokens])
    return np.frombuffer(tokens, np.int32)


def _page_table(schedule: SequenceOf[Scheduled], context_lens: NDArray[np.int32], page_size: int) -> NDArray[np.int32]:
    """Each row holds the pages of the context after this step, shared ones in every row that reads them."""
    lens = (-(-context_lens // page_size)).tolist()
    width = max(lens)
    padding = array("i", [_NO_PAGE]) * width
    table = array("i")
    for part, num_pages in zip(schedule, lens, strict=True):
        table.extend(part.sequence.table.pages[:num_pages])
        table.extend(padding[num_pages:])
    return np.frombuffer(table, np.int32).reshape(len(lens), width)


def _sample_inputs(drawn: list[Sequence]) -> SampleInputs | None:
    if all(sequence.greedy and not sequence.num_edits for sequence in drawn):
        return None
    params = [sequence.sampling for sequence in drawn]
    edits = [sequence.edits for sequence in drawn if sequence.edits is not None]
    lens = np.array([sequence.num_edits for sequence in drawn], np.int32)
    return SampleInputs(
        edit_starts=np.cumsum(lens, dtype=np.int32) - lens,
        edit_lens=lens,
        edit_tokens=np.concatenate([e.tokens for e in edits] or [np.empty(0, np.int32)]),
        edit_scale=np.concatenate([e.scale for e in edits] or [np.empty(0, np.float32)]),
        edit_add=np.concatenate([e.add for e in edits] or [np.empty(0, np.float32)]),
        temperature=np.array([0.0 if s.greedy else s.sampling.temperature for s in drawn], np.float32),
        top_k=np.array([p.top_k for p in params], np.int32),
        top_p=np.array([p.top_p for p in params], np.float32),
        min_p=np.array([p.min_p for p in params], np.float32),
        uniform=uniform([p.seed for p in params], [len(sequence) for sequence in drawn]),
    )
