"""Which tokens of which sequences the next step computes. Pure policy: no clock, no device, no arrays.

Sequences are ordered by arrival, and all running ones arrived before all waiting ones: admission is first come,
first served, and a preempted sequence is always the youngest running one, which returns to the queue's front.

* Decode rows come first; prefill chunks and new sequences share what is left of the step's token budget, oldest first.
  Beside decode rows the budget is what keeps the step short enough for them (see pace.py).
* A sequence is admitted beside others only when the pages for all its tokens can be had and one more for each
  sequence that runs then. It gets its own at once, so a prefill never stops half-way for lack of pages.
* A running sequence that needs a page when there is none preempts the youngest. A preempted sequence keeps its
  tokens and edits; its full pages stay in the prefix cache, so most of it is found again when it returns. With a host
  tier all of it is, the page that was not full too, unless that tier is full.
* A sequence of whose prefix the host holds more than the device is admitted like any other; while that is copied it
  has its place and its pages, and sits out. What is being copied for another, or is still being saved, it waits for in
  the queue, and who is behind it waits too: it is one copy, and with equal prefixes there should be only one.
* A sequence whose last draw is started leaves at once: no later step needs its place or its pages.
* A sequence whose penalties need the value of a token still in flight stalls: it sits out one step while the others go
  on, so it runs at half their pace. Where many stall, it is faster to wait for the step in flight (see _MANY).
* This cannot deadlock: a sequence that could not run alone is refused when it is submitted, so the oldest always
  finds pages. It cannot thrash: for pages to run out after an admission, some sequence must take its second page
  since, so whoever is admitted stays for at least `page_size` steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from oi.runtime.batch import Scheduled
from oi.runtime.copies import Copy
from oi.runtime.errors import RequestError
from oi.runtime.geometry import Geometry
from oi.runtime.host_tier import HostTier
from oi.runtime.kv import PagedKv
from oi.runtime.messages import Submit
from oi.runtime.pace import Pace
from oi.runtime.sampling import check_sampling, most_edits
from oi.runtime.sequence import Sequence

__all__ = ["Counters", "Scheduler"]

_MANY = 0.25
"""Share of the running sequences. Where so many stall, sitting out every second step costs an eighth of the tokens or
more; that all wait costs the time that the host needs between two steps, on a GPU less than that."""


@dataclass
class Counters:
    """They only grow; what each counts is said in messages.Stats."""

    steps: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    host_hits: int = 0
    prompt_tokens: int = 0
    preemptions: int = 0


@dataclass
class _Budget:
    """What is left of the step being made."""

    tokens: int
    edits: int


class Scheduler:
    """Owns the sequences, waiting and running, and the paged KV memory."""

    def __init__(self, geometry: Geometry, tier: HostTier | None = None) -> None:
        self._geometry = geometry
        self._max_running = min(geometry.max_num_seqs, geometry.max_step_tokens)
        self._by_id: dict[int, Sequence] = {}
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._restoring: dict[Copy, tuple[Sequence, int]] = {}
        """Running sequences that sit out until a copy has landed, and how many tokens they then have."""
        self.kv = PagedKv(geometry.pages, geometry.page_size, tier)
        self.counters = Counters()
        self.pace = Pace(geometry)
        """To be told what steps take, for else steps are as large as they may be."""

    @property
    def has_work(self) -> bool:
        return bool(self._by_id)

    def submit(self, request: Submit) -> None:
        """Queue a sequence. Raises RequestError where it could never run; nothing has changed then.

        A prompt and max_tokens that exceed the model's length together are refused here; to shorten max_tokens to
        what is left is the sender's to decide.
        """
        self._check(request)
        sequence = Sequence(request)
        self._by_id[request.id] = sequence
        self.waiting.append(sequence)

    def abort(self, id_: int) -> None:
        """Forget a sequence, wherever it is, and free its pages. Unknown ids are ignored."""
        if (sequence := self._by_id.get(id_)) is not None:
            self.finish(sequence)

    def schedule(self) -> list[Scheduled]:
        """The next step. Every running sequence has pages for its part.

        Empty only without work, or where all that could be done needs what is in flight: tokens that steps draw, or
        pages that are copied.
        """
        self._grow_tables()
        decodes, edited, prefills, stalled = self._sort_running()
        if stalled and stalled >= _MANY * len(self.running):
            return []
        budget = _Budget(self._most_tokens([*decodes, *edited], prefills) - len(decodes), self._geometry.max_edits)
        parts = [Scheduled(sequence, 1, True) for sequence in decodes]
        parts += [self._part(sequence, budget) for sequence in (*edited, *prefills)]
        while (sequence := self._admit(budget)) is not None:
            if sequence.restore is None:
                parts.append(self._part(sequence, budget))
        if self.kv.tier is not None:
            self.kv.save_ahead()  # when what goes for this step is gone
        parts = [part for part in parts if part.num_tokens]
        rows = len(decodes) + len(edited)
        if len(parts) > rows:
            self._leave_excess(parts, rows)
        return parts

    def started(self, schedule: list[Scheduled]) -> list[Sequence]:
        """The schedule's step was started; returns the sequences that draw, by row.

        Every later step finds the K/V of this one in the cache, so pages that it fills may be shared.
        """
        self.counters.steps += 1
        self.kv.steps = self.counters.steps
        page_size = self.kv.page_size
        drawing: list[Sequence] = []
        for sequence, num_tokens, samples in schedule:
            if sequence.prompt_computed < sequence.prompt_len:
                self._count_prompt(sequence, num_tokens)
            sequence.computed += num_tokens
            if sequence.computed >= (sequence.table.sealed + 1) * page_size:
                self.kv.seal(sequence.table, sequence.tokens, sequence.num_known)
            if samples:
                sequence.row = len(drawing)
                sequence.length += 1
                drawing.append(sequence)
                if sequence.length == sequence.limit:
                    self._retire(sequence)
        return drawing

    def restored(self, copy: Copy, ok: bool) -> bool:
        """The copy has landed; returns whether a sequence goes on with what it brought.

        Where it failed, the sequence goes on without: that part of it is computed.
        """
        sequence, num_tokens = self._restoring.pop(copy, (None, 0))
        if sequence is None:  # it was aborted, or preempted
            return False
        sequence.restore = None
        found = sequence.computed
        if ok:
            sequence.computed = num_tokens
            self.kv.seal(sequence.table, sequence.tokens, num_tokens)
        self._count_found(sequence, found)
        return ok

    def finish(self, sequence: Sequence) -> None:
        """The sequence has ended: forget it and free its pages."""
        sequence.ended = True
        del self._by_id[sequence.id]
        if sequence.length < sequence.limit:
            (self.running if sequence in self.running else self.waiting).remove(sequence)
            self._forget_restore(sequence)
            self._give_up_pages(sequence)

    def check(self) -> None:
        """Raises AssertionError where pages are not conserved or the queues are not in order."""
        self.kv.check(sequence.table for sequence in self._by_id.values())
        unretired = [sequence for sequence in self._by_id.values() if sequence.length < sequence.limit]
        assert [*self.running, *self.waiting] == unretired, "not in order of arrival"
        assert all(not sequence.table.pages and not sequence.computed for sequence in self.waiting)
        assert len(self.running) <= self._max_running
        sitting_out = {sequence for sequence in self._by_id.values() if sequence.restore is not None}
        assert sitting_out <= set(self.running), "only who runs has pages to be restored into"
        assert {copy: sequence.restore for copy, (sequence, _) in self._restoring.items()} == {
            sequence.restore: sequence.restore for sequence in sitting_out
        }

    def _grow_tables(self) -> None:
        """Pages for every running sequence's next tokens, oldest first; for lack of any, the youngest give theirs up.

        Who gave them up is not admitted in the same step: the pages that it let go were too few to stay with.
        """
        i, page_size = 0, self.kv.page_size
        while i < len(self.running):
            sequence = self.running[i]
            if sequence.length <= len(sequence.table.pages) * page_size or self.kv.extend(
                sequence.table, sequence.length
            ):
                i += 1
            else:
                self._preempt(self.running.pop())

    def _sort_running(self) -> tuple[list[Sequence], list[Sequence], list[Sequence], int]:
        """Who runs, by what the next step can do for it: decode, decode with edits, or prefill; and how many stall."""
        decodes: list[Sequence] = []
        edited: list[Sequence] = []
        prefills: list[Sequence] = []
        stalled = 0
        for sequence in self.running:
            if sequence.length - sequence.computed > 1:  # as it is of all that are being restored
                if sequence.restore is None:
                    prefills.append(sequence)
            elif sequence.edits is None:
                decodes.append(sequence)
            elif sequence.stalled:
                stalled += 1
            else:
                edited.append(sequence)
        # Whoever lacked edits in the last step comes first in this one; in general all are equal and keep their order.
        edited.sort(key=lambda sequence: sequence.last_step)
        return decodes, edited, prefills, stalled

    def _most_tokens(self, decodes: list[Sequence], prefills: list[Sequence]) -> int:
        """Of the step, decode rows and prompts together."""
        if not prefills and not self.waiting:
            return self._geometry.max_step_tokens
        return self.pace.most_tokens(len(decodes), sum([sequence.length for sequence in decodes]))

    def _leave_excess(self, parts: list[Scheduled], rows: int) -> None:
        """The youngest prompt's end is left for the next step where padding would cost more than another step."""
        excess = self.pace.excess(sum([part.num_tokens for part in parts]), rows)
        if excess and parts[-1].num_tokens > excess:
            parts[-1] = Scheduled(parts[-1].sequence, parts[-1].num_tokens - excess, False)

    def _preempt(self, sequence: Sequence) -> None:
        self.counters.preemptions += 1
        self._forget_restore(sequence)
        if self.kv.tier is None:
            self._give_up_pages(sequence)
        else:
            self.kv.seal(sequence.table, sequence.tokens, sequence.num_known)
            self.kv.put_off(sequence.table, sequence.tokens, sequence.num_known)
        sequence.computed = 0
        self.waiting.appendleft(sequence)

    def _retire(self, sequence: Sequence) -> None:
        """Its last draw is in flight: no later step needs its place and its pages."""
        self.running.remove(sequence)
        self._give_up_pages(sequence)

    def _give_up_pages(self, sequence: Sequence) -> None:
        self.kv.seal(sequence.table, sequence.tokens, sequence.num_known)
        self.kv.release(sequence.table)

    def _forget_restore(self, sequence: Sequence) -> None:
        if sequence.restore is not None:
            del self._restoring[sequence.restore]
            sequence.restore = None

    def _count_found(self, sequence: Sequence, on_device: int) -> None:
        """It was admitted and has all that was found of it, of which so many tokens were on the device."""
        if sequence.cached is None:
            sequence.cached = sequence.prompt_computed = sequence.computed
            self.counters.prefix_queries += sequence.prompt_len
            self.counters.prefix_hits += on_device
            self.counters.host_hits += sequence.computed - on_device

    def _count_prompt(self, sequence: Sequence, num_tokens: int) -> None:
        of_prompt = min(sequence.computed + num_tokens, sequence.prompt_len)
        self.counters.prompt_tokens += max(0, of_prompt - max(sequence.prompt_computed, sequence.computed))
        sequence.prompt_computed = max(sequence.prompt_computed, of_prompt)

    def _part(self, sequence: Sequence, budget: _Budget) -> Scheduled:
        """As much of the sequence as the budget allows, and that much less of the budget.

        Where its draw's edits do not fit beside those of the others, its last token is left for the next step.
        """
        num_tokens = min(sequence.remaining, budget.tokens)
        samples = num_tokens == sequence.remaining
        if samples and sequence.num_edits > budget.edits:
            num_tokens, samples = num_tokens - 1, False
        if num_tokens:
            budget.tokens -= num_tokens
            budget.edits -= sequence.num_edits if samples else 0
            sequence.last_step = self.counters.steps
        return Scheduled(sequence, num_tokens, samples)

    def _admit(self, budget: _Budget) -> Sequence | None:
        """Move the oldest waiting sequence to running if a place, pages and tokens of the step are left for it."""
        if not self.waiting or not budget.tokens or len(self.running) == self._max_running:
            return None
        sequence = self.waiting[0]
        if sequence.length > len(sequence.tokens):  # just preempted; to find its prefix takes its tokens' values
            return None
        matched = self.kv.match(sequence.table, sequence.tokens)
        spare = len(self.running) + 1 if self.running else 0
        if not self.kv.can_allocate(sequence.length, matched, spare):
            return None
        on_host: list[bytes] = []
        if self.kv.tier is not None:
            on_host = self.kv.match_host(sequence.table, sequence.tokens, len(matched))
            if self.kv.tier.slots.any_busy(on_host):
                return None
        self.running.append(self.waiting.popleft())
        sequence.computed = self.kv.adopt(sequence.table, matched)
        if on_host:
            sequence.restore, num_tokens = self.kv.restore(sequence.table, on_host, sequence.length)
            self._restoring[sequence.restore] = sequence, num_tokens
        else:
            self.kv.extend(sequence.table, sequence.length)
            self._count_found(sequence, sequence.computed)
        return sequence

    def _check(self, request: Submit) -> None:
        limits, prompt = self._geometry, request.prompt
        if request.id in self._by_id:
            raise RequestError(f"sequence {request.id} is running already: ids must be unique", "id")
        if not prompt:
            raise RequestError("the prompt is empty: it must have at least one token", "prompt")
        ids = np.asarray(prompt, np.int32)
        if ids.min() < 0 or ids.max() >= limits.vocab_size:
            raise RequestError(f"the prompt has a token that is not from 0 to {limits.vocab_size - 1}", "prompt")
        if request.max_tokens < 1:
            raise RequestError(f"max_tokens must be at least 1; found {request.max_tokens}", "max_tokens")
        total = len(prompt) + request.max_tokens
        if total > min(limits.max_model_len, limits.pages * limits.page_size):
            raise RequestError(
                f"{len(prompt)} prompt tokens and max_tokens {request.max_tokens} are {total} together, more than the "
                f"{limits.max_model_len} that a sequence may have; shorten the prompt or lower max_tokens",
                "max_tokens",
            )
        if request.logprobs is not None and not 0 <= request.logprobs <= 20:
            raise RequestError(f"logprobs must be from 0 to 20; found {request.logprobs}", "logprobs")
        check_sampling(request.sampling, limits.vocab_size)
        edits = most_edits(request.sampling, prompt, request.max_tokens, limits.vocab_size)
        if edits > limits.max_edits:
            raise RequestError(
                f"penalties and logit_bias may need {edits} logit edits for one token, more than the "
                f"{limits.max_edits} of a step; lower max_tokens or leave the penalties out",
                "max_tokens",
            )
