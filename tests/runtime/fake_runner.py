"""A runner without a device, and an oracle that knows nothing of pages, batches or steps.

The model: K/V of a position is a hash of the token, the position and *all* K/V before it; the next token is a
hash of the last K/V and of the draw's inputs. One wrong slot, page, length or random number changes everything after.
"""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oi.runtime.batch import Batch, SampleInputs
from oi.runtime.geometry import Geometry
from oi.runtime.messages import SamplingParams
from oi.runtime.runner import StepResult
from oi.runtime.sampling import LogitEdits, uniform
from tests.runtime.fake_copies import FakeCopies

_MIX = np.uint64(0x9E3779B97F4A7C15)


def _hash(values: list[int]) -> int:
    h = 0
    for value in values:
        h = (h ^ value) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        h ^= h >> 29
    return h


def _kv(token: int, past: NDArray[np.uint64]) -> int:
    """Of a token behind a context whose K/V is `past`, in order."""
    weights = (np.arange(len(past), dtype=np.uint64) * np.uint64(2) + np.uint64(1)) * _MIX
    return _hash([token, len(past), int((past * weights).sum())])


def _draw(kv: int, vocab: int, inputs: list[float]) -> int:
    return _hash([kv, *np.array(inputs, np.float32).view(np.uint32).tolist()]) % vocab


def _draw_inputs(sampling: SampleInputs | None, row: int) -> list[float]:
    if sampling is None:
        return []
    start, size = int(sampling.edit_starts[row]), int(sampling.edit_lens[row])
    span = slice(start, start + size)
    edits = zip(sampling.edit_tokens[span], sampling.edit_scale[span], sampling.edit_add[span], strict=True)
    inputs = [float(x) for edit in sorted((int(t), float(s), float(a)) for t, s, a in edits) for x in edit]
    if sampling.temperature[row] > 0:
        names = ("temperature", "top_k", "top_p", "min_p", "uniform")
        inputs += [float(getattr(sampling, name)[row]) for name in names]
    return inputs


def _scribble(batch: Batch) -> None:
    """The arrays are the engine's again once a step is started."""
    for name in ("tokens", "positions", "slots", "query_starts", "query_lens", "context_lens", "page_table", "rows"):
        getattr(batch, name)[...] = -0xDEAD


def expected_tokens(prompt: list[int], params: SamplingParams, max_tokens: int, vocab: int) -> list[int]:
    """What a sequence must generate, whatever runs beside it, when nothing stops it."""
    past = np.empty(0, np.uint64)
    generated: list[int] = []
    for token in prompt:
        past = np.append(past, np.uint64(_kv(token, past)))
    while len(generated) < max_tokens:
        edits = LogitEdits(params, prompt)
        for token in generated:
            edits.count(token)
        listed = zip(edits.tokens.tolist(), edits.scale.tolist(), edits.add.tolist(), strict=True)
        inputs = [float(x) for edit in sorted(listed) for x in edit]
        if params.temperature > 0:
            position = len(prompt) + len(generated)
            draw = uniform(np.array([params.seed], np.uint64), np.array([position], np.int32))[0]
            inputs += [params.temperature, params.top_k, params.top_p, params.min_p, float(draw)]
        generated.append(_draw(int(past[-1]), vocab, inputs))
        past = np.append(past, np.uint64(_kv(generated[-1], past)))
    return generated


class FakeRunner:
    """Keeps a paged memory of K/V as a device would, and finds every context through the page table only.

    Where steps overlap, a step is computed when it is finished, which is later than any device would: what the engine
    does to the batch meanwhile, or takes for granted before, shows.
    """

    def __init__(self, geometry: Geometry, overlaps: bool = False, copies: FakeCopies | None = None) -> None:
        self.geometry = geometry
        self.overlaps = overlaps
        self.copies = copies
        self.most_in_flight = 0
        self.started = self.computed = 0
        """Steps."""
        self.memory = np.full(geometry.pages * geometry.page_size, 0xDEAD, np.uint64)
        self._in_flight: deque[tuple[object, Batch]] = deque()
        self._held: deque[list[Any]] = deque()
        """Of each step in flight, the copies that it must come after."""
        self._drawn = np.empty(0, np.int32)
        """By the step computed last."""
        if copies is not None:
            copies.attach(self)

    def start(self, batch: Batch) -> object:
        self._check(batch)
        handle = object()
        self._in_flight.append((handle, deepcopy(batch)))
        self._held.append([] if self.copies is None else self.copies.take_held())
        self.started += 1
        _scribble(batch)
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        assert len(self._in_flight) <= 1 + self.overlaps
        return handle

    def finish(self, handle: object) -> StepResult:
        started, batch = self._in_flight.popleft()
        assert handle is started, "finished out of order"
        held = self._held.popleft()
        if self.copies is None:
            return self._run(batch)
        self.copies.poke()
        for copy in held:
            self.copies.finish(copy)
        result = self._run(batch)
        self.computed += 1
        self.copies.poke()
        return result

    def _run(self, batch: Batch) -> StepResult:
        pending = batch.tokens < 0
        batch.tokens[pending] = self._drawn[-1 - batch.tokens[pending]]
        for s in range(len(batch.query_starts)):
            self._compute(batch, s)
        owners = np.searchsorted(batch.query_starts, batch.rows, side="right") - 1
        last = [self.memory[batch.slots[row]] for row in batch.rows]
        drawn = [_draw(int(kv), self.geometry.vocab_size, _draw_inputs(batch.sampling, r)) for r, kv in enumerate(last)]
        assert len(set(owners.tolist())) == len(owners)
        tokens = self._drawn = np.array(drawn, np.int32)
        if not batch.want_logprobs:
            return StepResult(tokens)
        top = np.tile(np.arange(20, dtype=np.int32), (len(tokens), 1))
        return StepResult(tokens, -tokens.astype(np.float32), top, -top.astype(np.float32))

    def _compute(self, batch: Batch, s: int) -> None:
        page_size = self.geometry.page_size
        start, size, context = int(batch.query_starts[s]), int(batch.query_lens[s]), int(batch.context_lens[s])
        for row in range(start, start + size):
            position = int(batch.positions[row])
            assert position == context - size + row - start
            positions = np.arange(position)
            slots = batch.page_table[s, positions // page_size] * page_size + positions % page_size
            assert batch.slots[row] == batch.page_table[s, position // page_size] * page_size + position % page_size
            self.memory[batch.slots[row]] = _kv(int(batch.tokens[row]), self.memory[slots])

    def _check(self, batch: Batch) -> None:
        """Shapes, dtypes and limits as docs/architecture.md gives them."""
        limits, (T,), (S,) = self.geometry, batch.tokens.shape, batch.query_starts.shape
        assert 0 < T <= limits.max_step_tokens
        assert 0 < S <= limits.max_num_seqs
        shapes = {"positions": T, "slots": T, "query_lens": S, "context_lens": S, "rows": len(batch.rows)}
        for name, size in {**shapes, "tokens": T, "query_starts": S}.items():
            array = getattr(batch, name)
            assert (array.shape, array.dtype) == ((size,), np.int32), name
            assert array.flags.c_contiguous
        assert batch.page_table.flags.c_contiguous
        assert batch.page_table.dtype == np.int32
        assert batch.page_table.shape[0] == S
        assert batch.page_table.shape[1] <= -(-limits.max_model_len // limits.page_size)
        assert len(set(batch.slots.tolist())) == T
        assert batch.slots.min() >= 0
        assert batch.query_lens.sum() == T
        drawn_before = len(self._in_flight[-1][1].rows) if self._in_flight else 0
        assert batch.tokens.min() >= -drawn_before, "a token that the step started just before does not draw"
        if batch.sampling is not None:
            edits = len(batch.sampling.edit_tokens)
            assert edits == batch.sampling.edit_lens.sum() <= limits.max_edits
