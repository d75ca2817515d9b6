"""The host tier under a device that means ill (fake_copies.py): same tokens, no page lost, nothing computed twice.

The oracle knows no tiers: a copy that begins too early, a page or slot that is written too soon, a prefix that is taken
for another shows as a wrong token.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oi.runtime.engine import Engine
from oi.runtime.errors import RequestError
from oi.runtime.geometry import Geometry
from oi.runtime.host_slots import HostSlots
from oi.runtime.host_tier import HostTier
from oi.runtime.messages import SamplingParams, Submit
from tests.runtime.fake_clock import fitful
from tests.runtime.fake_copies import FakeCopies
from tests.runtime.fake_runner import FakeRunner
from tests.runtime.histories import VOCAB, Client, check_stream, geometry, history

GREEDY = SamplingParams(temperature=0.0)
SMALL = Geometry(
    max_model_len=24, max_num_seqs=3, max_step_tokens=9, max_edits=VOCAB, pages=9, page_size=3, vocab_size=VOCAB
)
in_turn_and_overlapping = pytest.mark.parametrize("overlaps", [False, True], ids=["in turn", "overlapping"])


def _engine(geometry: Geometry, overlaps: bool, copies: FakeCopies) -> Engine:
    return Engine(FakeRunner(geometry, overlaps, copies), fitful())


def _advance(engine: Engine, client: Client) -> None:
    done = engine.advance()
    if done is None:
        engine.wait()
    else:
        client.take(done)
    engine.scheduler.check()


def _settle(engine: Engine, copies: FakeCopies) -> None:
    """All that is in flight lands; then everything must be somewhere."""
    exchange = engine.exchange
    assert exchange is not None
    while exchange.tier.waits:
        copies.wait()
        exchange.take(engine.scheduler)
        engine.scheduler.check()


@in_turn_and_overlapping
@settings(max_examples=150, deadline=None)
@given(
    geometry,
    history(),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.0, 0.3]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_outputs_equal_those_without_a_tier(
    overlaps: bool,
    geometry: Geometry,
    history: list[Submit | int | None],
    slots: int,
    failures: float,
    ready: bool,
    rng: Random,
) -> None:
    copies = FakeCopies(slots, rng, failures, ready=slots if ready else 0)
    engine, client = _engine(geometry, overlaps, copies), Client()
    accepted: dict[int, Submit] = {}
    aborted: set[int] = set()
    for event in [*history, *[None] * 5000]:
        if isinstance(event, Submit):
            try:
                engine.submit(event)
                accepted[event.id] = event
            except RequestError:
                assert len(event.prompt) + event.max_tokens > geometry.pages * geometry.page_size
        elif isinstance(event, int):
            engine.abort([event])
            aborted.add(event)
            engine.scheduler.check()
        elif engine.has_work:
            _advance(engine, client)
    assert not engine.has_work
    for id_, submitted in accepted.items():
        check_stream(submitted, client.tokens.get(id_, []), id_ in aborted)
    _settle(engine, copies)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)


@in_turn_and_overlapping
@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(8, 14),
    st.lists(st.tuples(st.integers(1, 9), st.integers(4, 15), st.integers(0, 2)), min_size=2, max_size=7),
    st.randoms(use_true_random=False),
)
def test_with_room_on_the_host_no_token_is_computed_twice(
    overlaps: bool, page_size: int, pages: int, sizes: list[tuple[int, int, int]], rng: Random
) -> None:
    geometry = Geometry(24, 5, 11, VOCAB, -(-24 // page_size) + pages % 4, page_size, VOCAB)
    engine, client = _engine(geometry, overlaps, FakeCopies(500, rng)), Client()
    for id_, (prompt, max_tokens, stem) in enumerate(sizes):
        engine.submit(Submit(id_, [stem] * prompt, GREEDY, max_tokens))
    reached: dict[int, int] = {}
    scheduler, schedule = engine.scheduler, engine.scheduler.schedule

    def watched() -> list[object]:
        parts = schedule()
        for sequence, num_tokens, _ in parts:
            assert sequence.computed >= reached.get(sequence.id, 0), "computed twice"
            reached[sequence.id] = sequence.computed + num_tokens
        return parts  # type: ignore[return-value]

    scheduler.schedule = watched  # type: ignore[method-assign,assignment]
    while engine.has_work:
        _advance(engine, client)
    for id_, (prompt, max_tokens, stem) in enumerate(sizes):
        check_stream(Submit(id_, [stem] * prompt, GREEDY, max_tokens), client.tokens[id_], False)


def _run(engine: Engine, *requests: Submit) -> Client:
    client = Client()
    for submitted in requests:
        engine.submit(submitted)
    while engine.has_work:
        _advance(engine, client)
    return client


def _prompt(number: int, length: int = 19) -> list[int]:
    """Prompts of which none begins like another."""
    return [(number >> 3 * i) % 7 if i < 3 else (number + i) % 7 for i in range(length)]


@in_turn_and_overlapping
def test_a_working_set_larger_than_the_pool_is_computed_once(overlaps: bool) -> None:
    """Six prompts of six full pages, three times a pool of twelve; the tiers together hold 12 + 27."""
    rng = Random()
    copies = FakeCopies(36, rng)
    engine = _engine(replace(SMALL, pages=12), overlaps, copies)
    for id_ in range(6):
        _run(engine, Submit(id_, _prompt(id_), GREEDY, 1))
    computed = engine.stats().prompt_tokens
    for id_ in range(100, 150):
        again = _run(engine, Submit(id_, _prompt(rng.randrange(6)), GREEDY, 1))
        assert again.tokens[id_][0].cached == 18
    stats = engine.stats()
    assert stats.prompt_tokens == computed + 50
    assert stats.prefix_hits + stats.host_hits == 50 * 18
    assert stats.host_hits > 0


@pytest.mark.parametrize(("which", "found"), [(5, 18), (4, 18), (1, 0), (0, 0)])
def test_what_both_tiers_cannot_hold_goes_oldest_first(which: int, found: int) -> None:
    """Of 36 pages the device holds 9 and the host 12, of which 3 may be on the device too."""
    copies = FakeCopies(12, Random())
    engine = _engine(SMALL, False, copies)
    for id_ in range(6):
        _run(engine, Submit(id_, _prompt(id_), GREEDY, 1))
        _settle(engine, copies)
    assert _run(engine, Submit(100, _prompt(which), GREEDY, 1)).tokens[100][0].cached == found


def test_salts_share_nothing_on_the_host_either() -> None:
    engine = _engine(SMALL, True, FakeCopies(50, Random()))
    _run(engine, Submit(1, _prompt(1), GREEDY, 1, salt="a"))
    _run(engine, Submit(2, _prompt(2), GREEDY, 1), Submit(3, _prompt(3), GREEDY, 1))  # flush the device
    other = _run(engine, Submit(4, _prompt(1), GREEDY, 1, salt="b"))
    same = _run(engine, Submit(5, _prompt(1), GREEDY, 1, salt="a"))
    assert (other.tokens[4][0].cached, same.tokens[5][0].cached) == (0, 18)
    assert engine.stats().host_hits == 18


def test_equal_prefixes_that_arrive_together_are_restored_once() -> None:
    copies = FakeCopies(50, Random())
    engine = _engine(replace(SMALL, pages=14), True, copies)
    _run(engine, Submit(1, _prompt(1), GREEDY, 1))
    for id_ in (2, 3, 4):
        _run(engine, Submit(id_, _prompt(id_), GREEDY, 1))
    _settle(engine, copies)
    before = copies.restored
    client = _run(engine, *(Submit(id_, _prompt(1), GREEDY, 2) for id_ in (5, 6, 7)))
    assert copies.restored - before <= 6
    assert [client.tokens[id_][0].cached for id_ in (5, 6, 7)] == [18] * 3


def test_a_restore_that_fails_is_computed() -> None:
    copies = FakeCopies(50, Random())
    engine = _engine(SMALL, True, copies)
    for id_ in (1, 2, 3):
        _run(engine, Submit(id_, _prompt(id_), GREEDY, 1))
    _settle(engine, copies)
    copies.failures = 1.0
    client = _run(engine, Submit(4, _prompt(1), GREEDY, 5))
    check_stream(Submit(4, _prompt(1), GREEDY, 5), client.tokens[4], False)
    assert client.tokens[4][0].cached == 0
    assert any(not copy.to_host for copy in copies.failed)
    copies.failures = 0.0
    again = _run(engine, Submit(5, _prompt(1), GREEDY, 5))
    assert again.tokens[5][0].cached == 18, "what was computed instead is found"


def test_a_sequence_that_is_restored_delays_nobody() -> None:
    """The device lands nothing until it is waited for: others run to their end meanwhile."""

    class Late(FakeCopies):
        late = False

        def poke(self) -> None:
            if not self.late:
                super().poke()

    copies = Late(50, Random())
    engine = _engine(replace(SMALL, pages=16), True, copies)
    for id_ in (1, 2, 3):
        _run(engine, Submit(id_, _prompt(id_), GREEDY, 1))
    _settle(engine, copies)
    copies.late = True
    client = Client()
    for submitted in (Submit(4, _prompt(1), GREEDY, 1), Submit(5, [6, 6], GREEDY, 4)):
        engine.submit(submitted)
    while (done := engine.advance()) is not None:
        client.take(done)
    assert [len(client.tokens.get(id_, [])) for id_ in (4, 5)] == [0, 4]
    copies.late = False
    while engine.has_work:
        _advance(engine, client)
    assert client.tokens[4][0].cached == 18


def test_whoever_writes_a_page_comes_after_the_copy_that_was_ordered_last() -> None:
    """A page is saved and taken for a restore, the save lands, the restore's sequence is aborted."""
    tier = HostTier()
    tier.slots.grow(4)
    assert tier.slots.reserve([b"a"]) == [0]
    tier.slots.settle([b"a"], on_device=False)
    tier.keep([b"b"], [5], [1])
    tier.restore([b"a"], [5], tier.slots.read([b"a"]), used=1)
    (save, before_save), (restore, before_restore) = tier.orders(started=3)
    assert (save.beside, before_save, restore.beside, before_restore) == (2, set(), 2, {save})
    tier.landed(save, True, on_device=False)
    assert tier.touching([4, 5]) == {restore}
    tier.landed(restore, True, on_device=False)
    assert tier.touching([4, 5]) == set()
    tier.check()


def test_the_check_sees_a_lost_slot_and_a_slot_that_nothing_copies() -> None:
    slots = HostSlots()
    slots.grow(2)
    assert slots.reserve([b"a"]) == [0]
    slots.check({b"a"})
    with pytest.raises(AssertionError, match="in flight"):
        slots.check(set())
    slots.settle([b"a"], on_device=False)
    slots.check(set())
    slots.read([b"a"])
    slots.drop([b"a"])
    slots.check(set())
    assert b"a" not in slots
