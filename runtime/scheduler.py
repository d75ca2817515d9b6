"""Which tokens of which sequences the next step computes. Pure policy: no clock, no device, no arrays.

Sequences are ordered by arrival, and all running ones arrived before all waiting ones: admission is first come,
first served, and a preempted sequence is always the youngest running one, which returns to the queue's front.

* Decode rows come first, so that no prompt, however long, delays a running sequence; prefill chunks and new
  sequences share what is left of the step's token budget, oldest first.
* A sequence is admitted beside others only when the pages for all its tokens can be had and one more for each
  sequence that runs then. It gets its own at once, so a prefill never stops half-way for lack of pages.
* A running sequence that needs a page when there is none preempts the youngest. A preempted sequence keeps its
  tokens and edits; its full pages stay in the prefix cache, so most of it is found again when it returns.
* This cannot deadlock: a sequence that could not run alone is refused when it is submitted, so the oldest always
  finds pages. It cannot thrash: for pages to run out after an admission, some sequence must take its second page
  since, so whoever is admitted stays for at least `page_size` steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from oi.runtime.batch import Scheduled
from oi.runtime.errors import RequestError
from oi.runtime.geometry import Geometry
from oi.runtime.kv import PagedKv
from oi.runtime.messages import Submit
from oi.runtime.sampling import check_sampling, most_edits
from oi.runtime.sequence import Sequence

__all__ = ["Counters", "Scheduler"]


@dataclass
class Counters:
    """They only grow; what each counts is said in messages.Stats."""

    steps: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    preemptions: int = 0


@dataclass
class _Budget:
    """What is left of the step being made."""

    tokens: int
    edits: int


class Scheduler:
    """Owns the sequences, waiting and running, and the paged KV memory."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._max_running = min(geometry.max_num_seqs, geometry.max_step_tokens)
        self._by_id: dict[int, Sequence] = {}
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.kv = PagedKv(geometry.pages, geometry.page_size)
        self.counters = Counters()

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
        """The next step; never empty while there is work. Every running sequence has pages for its part."""
        self.counters.steps += 1
        budget = _Budget(self._geometry.max_step_tokens, self._geometry.max_edits)
        self._grow_tables()
        decodes = [sequence for sequence in self.running if sequence.remaining == 1]
        prefills = [sequence for sequence in self.running if sequence.remaining > 1]
        # Whoever lacked edits in the last step comes first in this one; in general all are equal and keep their order.
        decodes.sort(key=lambda sequence: sequence.last_step)
        parts = [self._part(sequence, budget) for sequence in (*decodes, *prefills)]
        while (sequence := self._admit(budget)) is not None:
            parts.append(self._part(sequence, budget))
        return [part for part in parts if part.num_tokens]

    def computed(self, part: Scheduled) -> None:
        """A scheduled part was run: its K/V is in the cache, and pages that it filled may be shared."""
        sequence, start = part.sequence, part.sequence.computed
        sequence.computed += part.num_tokens
        of_prompt = min(sequence.computed, sequence.prompt_len)
        self.counters.prompt_tokens += max(0, of_prompt - max(sequence.prompt_computed, start))
        sequence.prompt_computed = max(sequence.prompt_computed, of_prompt)
        self.kv.seal(sequence.table, sequence.tokens, sequence.computed)

    def finish(self, sequence: Sequence) -> None:
        """The sequence has ended: forget it and free its pages."""
        del self._by_id[sequence.id]
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self.kv.release(sequence.table)

    def check(self) -> None:
        """Raises AssertionError where pages are not conserved or the queues are not in order."""
        self.kv.check(sequence.table for sequence in self._by_id.values())
        assert [*self.running, *self.waiting] == list(self._by_id.values()), "not in order of arrival"
        assert all(not sequence.table.pages and not sequence.computed for sequence in self.waiting)
        assert len(self.running) <= self._max_running

    def _grow_tables(self) -> None:
        """Pages for every running sequence's next tokens, oldest first; for lack of any, the youngest give theirs up.

        Who gave them up is not admitted in the same step: the pages that it let go were too few to stay with.
        """
        i = 0
        while i < len(self.running):
            sequence = self.running[i]
            if self.kv.extend(sequence.table, len(sequence)):
                i += 1
            else:
                self._preempt(self.running.pop())

    def _preempt(self, sequence: Sequence) -> None:
        self.counters.preemptions += 1
        self.kv.release(sequence.table)
        sequence.computed = 0
        self.waiting.appendleft(sequence)

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
        matched = self.kv.match(sequence.table, sequence.tokens)
        spare = len(self.running) + 1 if self.running else 0
        if not self.kv.can_allocate(len(sequence), matched, spare):
            return None
        self.running.append(self.waiting.popleft())
        sequence.computed = self.kv.adopt(sequence.table, matched)
        self.kv.extend(sequence.table, len(sequence))
        if sequence.cached is None:
            sequence.cached = sequence.prompt_computed = sequence.computed
            self.counters.prefix_queries += sequence.prompt_len
            self.counters.prefix_hits += sequence.cached
        return sequence

    def _check(self, request: Submit) -> None:
        limits, prompt = self._geometry, request.prompt
        if request.id in self._by_id:
            raise RequestError(f"sequence {request.id} is running already: ids must be unique", "id")
        if not prompt:
            raise RequestError("the prompt is empty: it must have at least one token", "prompt")
        if min(prompt) < 0 or max(prompt) >= limits.vocab_size:
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
