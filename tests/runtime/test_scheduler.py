"""The scheduler over random histories: arrivals, steps, stops and aborts in a memory that is too small for all."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from oi.runtime.batch import Scheduled
from oi.runtime.errors import RequestError
from oi.runtime.geometry import Geometry
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.scheduler import Scheduler
from oi.runtime.sequence import Sequence

GEOMETRY = Geometry(
    max_model_len=20, max_num_seqs=4, max_step_tokens=6, max_edits=8, pages=12, page_size=2, vocab_size=4
)
GREEDY = SamplingParams(temperature=0.0)
PENALISED = SamplingParams(temperature=0.0, frequency_penalty=0.5, logit_bias={0: 1.0})


def _take(scheduler: Scheduler, schedule: list[Scheduled], token: int) -> list[int]:
    """Do what the engine does with a step, each drawn token being `token`; returns the ids that drew one."""
    return _append(scheduler, scheduler.started(schedule), token)


def _append(scheduler: Scheduler, drawing: list[Sequence], token: int) -> list[int]:
    alive = [sequence for sequence in drawing if not sequence.ended]
    for sequence in alive:
        if sequence.append(token) is not None:
            scheduler.finish(sequence)
    return [sequence.id for sequence in alive]


class SchedulerHistories(RuleBasedStateMachine):
    @initialize(
        pages=st.integers(8, 24),
        page_size=st.integers(1, 3),
        step_tokens=st.integers(1, 9),
        seqs=st.integers(1, 5),
        edits=st.sampled_from([4, 8, 64]),
        overlaps=st.booleans(),
    )
    def start(self, pages: int, page_size: int, step_tokens: int, seqs: int, edits: int, overlaps: bool) -> None:
        self.most_in_flight = 2 if overlaps else 1
        self.in_flight: deque[list[Sequence]] = deque()
        self.limits = Geometry(20, seqs, step_tokens, edits, pages, page_size, vocab_size=4)
        self.scheduler = Scheduler(self.limits)
        self.next_id = 0
        self.alive: dict[int, Submit] = {}
        self.generated: dict[int, int] = {}
        self.seen: set[int] = set()
        self.queries = self.hits = 0
        self.admitted_at: dict[int, int] = {}
        """Step of the last admission, of those running."""

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=22),
        max_tokens=st.integers(1, 12),
        params=st.sampled_from([GREEDY, PENALISED]),
        salt=st.sampled_from(["", "a"]),
    )
    def submit(self, prompt: list[int], max_tokens: int, params: SamplingParams, salt: str) -> None:
        self.next_id += 1
        request = Submit(self.next_id, prompt, params, max_tokens, stop_token_ids=[3], salt=salt)
        limits = self.limits
        if len(prompt) + max_tokens > min(limits.max_model_len, limits.pages * limits.page_size):
            with pytest.raises(RequestError, match="max_tokens"):
                self.scheduler.submit(request)
        else:
            self.scheduler.submit(request)
            self.alive[request.id] = request
            self.generated[request.id] = 0

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from([*self.alive, 999_999]))
        self.scheduler.abort(id_)
        self.alive.pop(id_, None)

    @rule(token=st.sampled_from([0, 1, 2, 2, 3]), times=st.integers(1, 8))
    def step(self, token: int, times: int) -> None:
        for _ in range(times):
            if self.scheduler.has_work or self.in_flight:
                self._step(token)

    def _step(self, token: int) -> None:
        while len(self.in_flight) < self.most_in_flight and self._start():
            self.scheduler.check()
        assert self.in_flight, "there is work, so there is a step"
        for id_ in _append(self.scheduler, self.in_flight.popleft(), token):
            self.generated[id_] += 1
            request = self.alive[id_]
            assert self.generated[id_] <= request.max_tokens
            if token == 3 or self.generated[id_] == request.max_tokens:
                del self.alive[id_]

    def _start(self) -> bool:
        before = [*self.scheduler.running]
        schedule = self.scheduler.schedule()
        self._check_queues(before)
        self._check_parts(schedule)
        self._check_counters()
        if schedule:
            self.in_flight.append(self.scheduler.started(schedule))
            for gone in set(before) - set(self.scheduler.running):
                self.admitted_at.pop(gone.id, None)
        return bool(schedule)

    def _check_queues(self, before: list[Sequence]) -> None:
        """Who ran stays, but for the youngest; who is new came from the queue's front and finds room to stay."""
        now, step = self.scheduler.running, self.scheduler.counters.steps
        kept = [sequence for sequence in before if sequence in now]
        assert before[: len(kept)] == kept
        assert before == kept or now == kept, "a step preempts or admits, not both"
        assert not before or kept, "the oldest stays"
        for sequence in before[len(kept) :]:
            assert step - self.admitted_at.pop(sequence.id) >= self.limits.page_size, "thrashing"
        for sequence in now[len(kept) :]:
            self.admitted_at[sequence.id] = step

    def _check_counters(self) -> None:
        """Prompts are looked up and computed once, however often a sequence is preempted."""
        for sequence in self.scheduler.running:
            if sequence.id not in self.seen:
                self.seen.add(sequence.id)
                self.queries += sequence.prompt_len
                self.hits += sequence.computed
        counters = self.scheduler.counters
        assert (counters.prefix_queries, counters.prefix_hits) == (self.queries, self.hits)
        assert counters.prompt_tokens <= self.queries - self.hits

    def _check_parts(self, schedule: list[Scheduled]) -> None:
        limits, parts = self.limits, {part.sequence.id: part for part in schedule}
        assert len(parts) == len(schedule), "one part for a sequence"
        assert sum(part.num_tokens for part in schedule) <= limits.max_step_tokens
        assert sum(part.sequence.num_edits for part in schedule if part.samples) <= limits.max_edits
        for part in schedule:
            sequence = part.sequence
            assert sequence in self.scheduler.running
            assert 1 <= part.num_tokens <= sequence.remaining
            assert part.samples == (part.num_tokens == sequence.remaining)
            assert len(sequence.table.pages) >= self.scheduler.kv.pages_for(sequence.computed + part.num_tokens)
            assert sequence.computed // limits.page_size >= sequence.table.sealed, "sealed before it was computed"
            assert not sequence.stalled
            assert sequence.length < sequence.limit, "computed beyond its end"
        if schedule:
            skipped = [s for s in self.scheduler.running if s.remaining == 1 and s.id not in parts]
            assert all(s.num_edits or s.stalled for s in skipped), "a decode row waits only for edits"
        else:
            assert not self.scheduler.has_work or self.in_flight, "nothing is waited for"

    @invariant()
    def pages_and_queues_are_sound(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.check()
        found = {s.id for s in [*self.scheduler.running, *self.scheduler.waiting]}
        retired = {s.id for drawing in self.in_flight for s in drawing if s.length == s.limit and not s.ended}
        assert not found & retired
        assert found | retired == self.alive.keys()
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            assert list(sequence.tokens[: sequence.prompt_len]) == self.alive[sequence.id].prompt
            assert len(sequence.tokens) - sequence.prompt_len == self.generated[sequence.id], (
                "no token lost or taken twice"
            )

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        most = sum(len(r.prompt) + 2 * r.max_tokens for r in self.alive.values()) * 20 + 1
        for _ in range(most):
            if not (self.scheduler.has_work or self.in_flight):
                break
            self._step(2)
        assert not self.alive, "every sequence ends"
        assert not self.scheduler.has_work
        self.scheduler.check()
        assert self.scheduler.kv.num_held == 0


SchedulerHistories.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestSchedulerHistories = SchedulerHistories.TestCase


def _request(id_: int, prompt: list[int], max_tokens: int = 4, params: SamplingParams = GREEDY) -> Submit:
    return Submit(id_, prompt, params, max_tokens)


def _shape(schedule: list[Scheduled]) -> list[tuple[int, int, bool]]:
    return [(part.sequence.id, part.num_tokens, part.samples) for part in schedule]


def test_a_long_prompt_is_cut_and_never_delays_a_decode_row() -> None:
    scheduler = Scheduler(GEOMETRY)
    scheduler.submit(_request(1, [1, 1], max_tokens=9))
    _take(scheduler, scheduler.schedule(), 2)
    scheduler.submit(_request(2, [0] * 12))
    shapes = []
    for _ in range(4):
        schedule = scheduler.schedule()
        shapes.append(_shape(schedule))
        _take(scheduler, schedule, 2)
    assert shapes == [
        [(1, 1, True), (2, 5, False)],
        [(1, 1, True), (2, 5, False)],
        [(1, 1, True), (2, 2, True)],
        [(1, 1, True), (2, 1, True)],
    ]


def test_when_pages_run_out_the_youngest_goes_back_to_the_front_and_loses_nothing() -> None:
    scheduler = Scheduler(replace(GEOMETRY, pages=9, max_step_tokens=20))
    for id_, prompt in enumerate(([0] * 4, [1] * 4, [0, 1] * 4), start=1):
        scheduler.submit(_request(id_, prompt, max_tokens=10))
    while not scheduler.counters.preemptions:
        _take(scheduler, scheduler.schedule(), 2)
    assert [s.id for s in scheduler.running] == [1]
    assert [s.id for s in scheduler.waiting] == [2, 3]
    second = scheduler.waiting[0]
    kept = second.tokens[:]
    assert len(kept) > second.prompt_len
    scheduler.abort(1)
    (part, *_) = scheduler.schedule()
    assert part.sequence is second
    assert second.tokens == kept
    assert second.computed == (len(kept) - 1) // 2 * 2, "its full pages were still cached"


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 5),
    st.integers(10, 20),
    st.lists(st.tuples(st.integers(1, 12), st.integers(8, 28)), min_size=3, max_size=9),
)
def test_who_is_admitted_stays_for_a_page_of_steps(page_size: int, pages: int, sizes: list[tuple[int, int]]) -> None:
    scheduler = Scheduler(Geometry(40, 6, 16, 8, pages, page_size, vocab_size=99))
    for id_, (prompt, max_tokens) in enumerate(sizes, start=1):
        with suppress(RequestError):
            scheduler.submit(_request(id_, [id_] * prompt, max_tokens))
    admitted_at: dict[int, int] = {}
    while scheduler.has_work:
        before = [sequence.id for sequence in scheduler.running]
        schedule = scheduler.schedule()
        step, now = scheduler.counters.steps, [sequence.id for sequence in scheduler.running]
        assert all(step - admitted_at[id_] >= page_size for id_ in set(before) - set(now))
        admitted_at.update(dict.fromkeys(set(now) - set(before), step))
        _take(scheduler, schedule, 2)


def test_prefix_hits_are_counted_at_the_first_admission_only() -> None:
    scheduler = Scheduler(replace(GEOMETRY, pages=10, max_step_tokens=20))
    scheduler.submit(_request(1, [0] * 5, max_tokens=1))
    _take(scheduler, scheduler.schedule(), 2)
    for id_ in (2, 3):
        scheduler.submit(_request(id_, [0, 0, 0, 0, id_], max_tokens=12))
    while scheduler.has_work:
        _take(scheduler, scheduler.schedule(), 2)
    assert scheduler.counters.preemptions > 0
    assert (scheduler.counters.prefix_queries, scheduler.counters.prefix_hits) == (15, 8)
    assert scheduler.counters.prompt_tokens == 5 + 1 + 1


def test_a_page_is_shared_as_soon_as_the_step_that_fills_it_is_started() -> None:
    scheduler = Scheduler(GEOMETRY)
    scheduler.submit(_request(1, [0] * 5))
    scheduler.started(scheduler.schedule())
    scheduler.submit(_request(2, [0] * 4 + [1]))
    assert _shape(scheduler.schedule()) == [(1, 1, True), (2, 1, True)]
    assert scheduler.counters.prefix_hits == 4


def test_a_page_with_a_pending_token_is_not_shared() -> None:
    scheduler = Scheduler(GEOMETRY)
    scheduler.submit(_request(1, [0] * 3))
    drawing = scheduler.started(scheduler.schedule())
    scheduler.started(scheduler.schedule())  # fills the second page
    scheduler.submit(_request(2, [0] * 5))
    assert drawing[0].table.sealed == 1
    scheduler.schedule()
    assert scheduler.counters.prefix_hits == 2


def test_who_draws_its_last_token_leaves_its_place_to_the_next_step() -> None:
    scheduler = Scheduler(replace(GEOMETRY, max_num_seqs=1))
    for id_ in (1, 2):
        scheduler.submit(_request(id_, [id_, 0], max_tokens=1))
    (first,) = scheduler.started(scheduler.schedule())
    assert _shape(scheduler.schedule()) == [(2, 2, True)]
    assert _append(scheduler, [first], 3) == [1]
    scheduler.check()


def test_rows_whose_edits_do_not_fit_together_take_turns() -> None:
    scheduler = Scheduler(replace(GEOMETRY, max_edits=6, vocab_size=99))
    bias = SamplingParams(temperature=0.0, logit_bias=dict.fromkeys(range(4), 1.0))
    for id_ in (1, 2, 3):
        scheduler.submit(_request(id_, [id_], max_tokens=4, params=bias))
    turns = []
    while scheduler.has_work:
        turns.append(_take(scheduler, scheduler.schedule(), 2))
    assert turns == [[1], [2], [3]] * 4


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (_request(1, []), "prompt is empty"),
        (_request(1, [0, 4]), "from 0 to 3"),
        (_request(1, [-1]), "from 0 to 3"),
        (_request(1, [0], max_tokens=0), "max_tokens must be at least 1"),
        (_request(1, [0] * 17, max_tokens=4), "17 prompt tokens and max_tokens 4 are 21 together"),
        (_request(7, [0]), "unique"),
        (_request(1, [0], params=SamplingParams(top_p=0.0)), "top_p"),
        (Submit(1, [0], GREEDY, 1, logprobs=21), "logprobs"),
    ],
)
def test_what_can_never_run_is_refused_and_changes_nothing(request_: Submit, message: str) -> None:
    scheduler = Scheduler(GEOMETRY)
    scheduler.submit(_request(7, [0]))
    with pytest.raises(RequestError, match=message):
        scheduler.submit(request_)
    assert len(scheduler.waiting) == 1
    scheduler.check()


def test_more_edits_than_a_step_allows_are_refused() -> None:
    scheduler = Scheduler(replace(GEOMETRY, vocab_size=99))
    with pytest.raises(RequestError, match="11 logit edits"):
        scheduler.submit(_request(1, [1], max_tokens=11, params=PENALISED))
