"""Every sequence gets exactly the tokens it would get alone, whatever the engine does with its neighbours.

The oracle (fake_runner.expected_tokens) knows no pages, batches or steps, so a wrong slot, page table, chunk,
cached prefix, preemption or random number shows as a wrong token.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oi.runtime.engine
from oi.runtime.batch import Batch
from oi.runtime.engine import Engine
from oi.runtime.errors import RequestError
from oi.runtime.geometry import Geometry
from oi.runtime.messages import SamplingParams, StepDone, Submit, Token
from oi.runtime.runner import StepResult
from tests.runtime.fake_runner import FakeRunner, expected_tokens

VOCAB = 7
ROOMY = Geometry(
    max_model_len=64, max_num_seqs=8, max_step_tokens=32, max_edits=64, pages=99, page_size=4, vocab_size=VOCAB
)
GREEDY = SamplingParams(temperature=0.0)

token = st.integers(0, VOCAB - 1)
sampling = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.0, 0.7]),
    top_p=st.sampled_from([1.0, 0.9]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2]),
    logit_bias=st.dictionaries(token, st.just(2.0), max_size=2),
    seed=st.integers(0, 2**64 - 1),
)
geometry = st.builds(
    Geometry,
    max_model_len=st.just(24),
    max_num_seqs=st.integers(1, 5),
    max_step_tokens=st.integers(1, 11),
    max_edits=st.sampled_from([VOCAB, 3 * VOCAB]),
    pages=st.integers(8, 24),
    page_size=st.integers(1, 4),
    vocab_size=st.just(VOCAB),
)


@st.composite
def request(draw: st.DrawFn, id_: int) -> Submit:
    """Prompts begin alike often, so that prefixes are shared."""
    stem = [1, 2, 3, 1, 2, 3, 1, 2][: draw(st.integers(0, 8))]
    prompt = stem + draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))
    return Submit(
        id_,
        prompt,
        draw(sampling),
        draw(st.integers(1, 24 - len(prompt))),
        stop_token_ids=draw(st.lists(token, max_size=1)),
        logprobs=draw(st.sampled_from([None, None, 0, 3])),
        salt=draw(st.sampled_from(["", "", "b"])),
    )


@st.composite
def history(draw: st.DrawFn) -> list[Submit | int | None]:
    """Arrivals, aborts (an id) and steps (None) in any order."""
    events: list[Submit | int | None] = []
    for id_ in range(1, draw(st.integers(1, 9)) + 1):
        events.append(draw(request(id_)))
        events.extend([None] * draw(st.integers(0, 5)))
        if draw(st.integers(0, 5)) == 0:
            events.append(draw(st.integers(1, id_)))
    return events


def _whole(request: Submit) -> tuple[list[int], str]:
    """What the request must bring when nobody aborts it."""
    tokens = expected_tokens(request.prompt, request.sampling, request.max_tokens, VOCAB)
    ends = [i for i, t in enumerate(tokens) if t in request.stop_token_ids]
    return (tokens[: ends[0] + 1], "stop") if ends else (tokens, "length")


class _Client:
    """Collects what an engine sends."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[Token]] = {}

    def take(self, done: StepDone) -> None:
        ids = [t.id for t in done.tokens]
        assert len(set(ids)) == len(ids), "one token a sequence a step"
        for t in done.tokens:
            self.tokens.setdefault(t.id, []).append(t)


def _check_stream(request: Submit, got: list[Token], aborted: bool) -> None:
    tokens, finish = _whole(request)
    found = [t.token for t in got]
    assert found == tokens[: len(found)] if aborted else found == tokens
    assert all(t.finish is None for t in got[:-1])
    if not aborted or found == tokens:
        assert got[-1].finish == finish
    assert [t.cached is not None for t in got] == [i == 0 for i in range(len(got))]
    for t in got:
        assert t.logprob == (None if request.logprobs is None else -t.token)
        assert t.top == (None if request.logprobs is None else [(i, -i) for i in range(request.logprobs)])


@pytest.fixture(params=[False, True], ids=["in turn", "overlapping"])
def overlaps(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("overlaps", [False, True], ids=["in turn", "overlapping"])
@settings(max_examples=250, deadline=None)
@given(geometry, history())
def test_outputs_equal_those_of_each_request_alone(
    overlaps: bool, geometry: Geometry, history: list[Submit | int | None]
) -> None:
    engine, client = Engine(FakeRunner(geometry, overlaps)), _Client()
    accepted: dict[int, Submit] = {}
    aborted: set[int] = set()
    for event in [*history, *[None] * 3000]:
        if isinstance(event, Submit):
            try:
                engine.submit(event)
                accepted[event.id] = event
            except RequestError:
                assert len(event.prompt) + event.max_tokens > geometry.pages * geometry.page_size
        elif isinstance(event, int):
            engine.abort([event, 777])
            aborted.add(event)
        elif engine.has_work:
            client.take(engine.step())
            engine.scheduler.check()
    assert not engine.has_work
    for id_, submitted in accepted.items():
        _check_stream(submitted, client.tokens.get(id_, []), id_ in aborted)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
    assert stats.generated_tokens == sum(map(len, client.tokens.values()))


def _run(engine: Engine, *requests: Submit) -> _Client:
    client = _Client()
    for submitted in requests:
        engine.submit(submitted)
    while engine.has_work:
        client.take(engine.step())
    return client


def test_a_stop_token_ends_the_sequence_and_is_reported(overlaps: bool) -> None:
    whole = expected_tokens([1, 2], GREEDY, 10, VOCAB)
    client = _run(Engine(FakeRunner(ROOMY, overlaps)), Submit(1, [1, 2], GREEDY, 10, stop_token_ids=[whole[3], 99]))
    first = whole.index(whole[3])
    assert [t.token for t in client.tokens[1]] == whole[: first + 1]
    assert client.tokens[1][-1].finish == "stop"


def test_a_sequence_may_fill_the_model_length_to_the_last_token(overlaps: bool) -> None:
    small = replace(ROOMY, pages=4, max_model_len=16)
    client = _run(Engine(FakeRunner(small, overlaps)), Submit(1, [1] * 15, GREEDY, 1), Submit(2, [1], GREEDY, 15))
    assert [len(client.tokens[id_]) for id_ in (1, 2)] == [1, 15]


def test_a_second_identical_prompt_computes_only_its_last_page(overlaps: bool) -> None:
    engine = Engine(FakeRunner(ROOMY, overlaps))
    prompt = [i % VOCAB for i in range(40)]
    first = _run(engine, Submit(1, prompt, GREEDY, 3))
    second = _run(engine, Submit(2, prompt, GREEDY, 3))
    assert first.tokens[1][0].cached == 0
    assert second.tokens[2][0].cached == 36
    assert [t.token for t in first.tokens[1]] == [t.token for t in second.tokens[2]]
    stats = engine.stats()
    assert (stats.prefix_queries, stats.prefix_hits, stats.prompt_tokens) == (80, 36, 44)


def test_a_reply_is_cached_for_the_next_turn(overlaps: bool) -> None:
    engine = Engine(FakeRunner(ROOMY, overlaps))
    prompt = [i % VOCAB for i in range(10)]
    reply = [t.token for t in _run(engine, Submit(1, prompt, GREEDY, 12)).tokens[1]]
    turn = _run(engine, Submit(2, [*prompt, *reply, 5], GREEDY, 1))
    assert turn.tokens[2][0].cached == 20  # the 22nd token was drawn, never computed


def test_a_reply_that_stops_is_cached_to_its_last_page() -> None:
    geometry = replace(ROOMY, vocab_size=1000)
    reply = expected_tokens([1, 2, 3], GREEDY, 9, geometry.vocab_size)
    engine = Engine(FakeRunner(geometry, overlaps=True))
    _run(engine, Submit(1, [1, 2, 3], GREEDY, 20, stop_token_ids=[reply[-1]]))
    turn = _run(engine, Submit(2, [1, 2, 3, *reply, 5], GREEDY, 1))
    assert turn.tokens[2][0].cached == 12, "the stop token too was computed"


def test_an_abort_frees_the_pages_at_once(overlaps: bool) -> None:
    engine = Engine(FakeRunner(ROOMY, overlaps))
    for id_ in (1, 2):
        engine.submit(Submit(id_, [1, 2, 3, 4, 5], GREEDY, 20))
    engine.step()
    engine.abort([1, 2, 3])
    assert engine.stats().pages_used == 0
    assert engine.stats().pages_cached == 1
    assert engine.has_work == overlaps, "a step in flight is still to be finished"
    assert not overlaps or engine.step().tokens == []
    assert not engine.has_work


def test_an_id_may_be_used_again_while_the_aborted_sequence_is_in_flight() -> None:
    engine = Engine(FakeRunner(ROOMY, overlaps=True))
    engine.submit(Submit(1, [1, 2, 3, 4, 5], GREEDY, 20))
    engine.step()
    engine.abort([1])
    client = _run(engine, Submit(1, [6, 5], GREEDY, 7))
    assert [t.token for t in client.tokens[1]] == expected_tokens([6, 5], GREEDY, 7, VOCAB)


def test_a_seeded_request_is_the_same_beside_others_and_another_seed_differs(overlaps: bool) -> None:
    def engine(geometry: Geometry) -> Engine:
        return Engine(FakeRunner(geometry, overlaps))

    drawn = SamplingParams(temperature=1.0, seed=2**64 - 5)
    alone = _run(engine(ROOMY), Submit(1, [4, 2], drawn, 20))
    others = [Submit(i, [i % VOCAB, 3], SamplingParams(temperature=1.0, seed=i), 9) for i in range(2, 7)]
    beside = _run(engine(replace(ROOMY, pages=18)), *others, Submit(1, [4, 2], drawn, 20))
    other = _run(engine(ROOMY), Submit(1, [4, 2], SamplingParams(temperature=1.0, seed=5), 20))
    assert alone.tokens[1] == beside.tokens[1]
    assert alone.tokens[1] != other.tokens[1]


@pytest.mark.parametrize("where", ["start", "finish"])
def test_a_failing_step_is_not_hidden(where: str, overlaps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("kernel failed")

    monkeypatch.setattr(FakeRunner, where, fail)
    engine = Engine(FakeRunner(ROOMY, overlaps))
    engine.submit(Submit(1, [1], GREEDY, 1))
    with pytest.raises(RuntimeError, match="kernel failed"):
        engine.step()


def test_the_time_of_a_step_is_that_between_two_finishes_where_they_overlap(
    overlaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    class Timed(FakeRunner):
        def start(self, batch: Batch) -> object:
            nonlocal now
            now += 1
            return super().start(batch)

        def finish(self, handle: object) -> StepResult:
            nonlocal now
            now += 10
            return super().finish(handle)

    monkeypatch.setattr(oi.runtime.engine, "perf_counter", lambda: now)
    engine = Engine(Timed(ROOMY, overlaps))
    engine.submit(Submit(1, [1], GREEDY, 4))
    seconds = []
    while engine.has_work:
        engine.step()
        seconds.append(engine.stats().step_seconds)
        now += 100  # what the engine's owner does between two steps
    assert seconds == ([12, 111, 111, 110] if overlaps else [11] * 4)


def _steps(*requests: Submit) -> list[list[int]]:
    """Whose tokens each step brings, where steps overlap."""
    engine = Engine(FakeRunner(ROOMY, overlaps=True))
    for submitted in requests:
        engine.submit(submitted)
    steps = []
    while engine.has_work:
        steps.append([t.id for t in engine.step().tokens])
    return steps


def test_a_step_is_in_flight_while_the_next_is_started_and_none_is_started_in_vain() -> None:
    runner = FakeRunner(ROOMY, overlaps=True)
    engine = Engine(runner)
    client = _run(engine, *(Submit(id_, [id_, 2, 3], GREEDY, 9) for id_ in range(1, 5)))
    assert runner.most_in_flight == 2
    assert [len(got) for got in client.tokens.values()] == [9] * 4
    assert engine.stats().steps == 9


def test_an_unforeseen_end_costs_one_row_of_one_step() -> None:
    end = expected_tokens([1, 2], GREEDY, 3, VOCAB)[0]
    engine = Engine(FakeRunner(ROOMY, overlaps=True))
    _run(engine, Submit(1, [1, 2], GREEDY, 10, stop_token_ids=[end]))
    assert (engine.stats().steps, engine.stats().generated_tokens) == (2, 1)


PENALISED = SamplingParams(temperature=0.0, presence_penalty=0.5)


def test_a_penalised_sequence_sits_out_every_second_step_beside_many_others() -> None:
    others = [Submit(id_, [id_], GREEDY, 8) for id_ in range(2, 7)]
    assert _steps(Submit(1, [1], PENALISED, 3), *others)[:5] == [
        [1, 2, 3, 4, 5, 6],
        [2, 3, 4, 5, 6],
        [2, 3, 4, 5, 6, 1],
        [2, 3, 4, 5, 6],
        [2, 3, 4, 5, 6, 1],
    ]


def test_where_many_are_penalised_no_step_runs_without_them() -> None:
    others = [Submit(id_, [id_], GREEDY, 5) for id_ in range(3, 6)]
    steps = _steps(Submit(1, [1], PENALISED, 5), Submit(2, [2], PENALISED, 5), *others)
    assert [sorted(step) for step in steps] == [[1, 2, 3, 4, 5]] * 5
