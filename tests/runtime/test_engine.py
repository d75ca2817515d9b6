"""Every sequence gets exactly the tokens it would get alone, whatever the engine does with its neighbours.

The oracle (fake_runner.expected_tokens) knows no pages, batches or steps, so a wrong slot, page table, chunk,
cached prefix, preemption or random number shows as a wrong token.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from oi.runtime.batch import Batch
from oi.runtime.engine import Engine
from oi.runtime.errors import RequestError
from oi.runtime.geometry import Geometry
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.runner import StepResult
from tests.runtime.fake_clock import fitful
from tests.runtime.fake_runner import FakeRunner, expected_tokens
from tests.runtime.histories import VOCAB, Client, check_stream, geometry, history

ROOMY = Geometry(
    max_model_len=64, max_num_seqs=8, max_step_tokens=32, max_edits=64, pages=99, page_size=4, vocab_size=VOCAB
)
GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(params=[False, True], ids=["in turn", "overlapping"])
def overlaps(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("overlaps", [False, True], ids=["in turn", "overlapping"])
@settings(max_examples=250, deadline=None)
@given(geometry, history())
def test_outputs_equal_those_of_each_request_alone(
    overlaps: bool, geometry: Geometry, history: list[Submit | int | None]
) -> None:
    engine, client = Engine(FakeRunner(geometry, overlaps), fitful()), Client()
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
        check_stream(submitted, client.tokens.get(id_, []), id_ in aborted)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
    assert stats.generated_tokens == sum(map(len, client.tokens.values()))


def _run(engine: Engine, *requests: Submit) -> Client:
    client = Client()
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


def test_the_time_of_a_step_is_that_between_two_finishes_where_they_overlap(overlaps: bool) -> None:
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

    engine = Engine(Timed(ROOMY, overlaps), clock=lambda: now)
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
