"""The pace learns any device's step times from nothing, keeps steps beside decode rows within limits, and recovers."""

from __future__ import annotations

from array import array
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oi.runtime.engine import Engine
from oi.runtime.geometry import Geometry
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.pace import _CALM, _SHARE, Pace
from oi.runtime.scheduler import Scheduler
from tests.runtime.fake_runner import FakeRunner

BUCKETS = (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
GEOMETRY = Geometry(
    max_model_len=40_000, max_num_seqs=256, max_step_tokens=4096, max_edits=8, pages=9000, page_size=16, vocab_size=9
)
PADDED = replace(GEOMETRY, token_buckets=BUCKETS)
UNKNOWN_COSTS = 1.25
"""How much longer than the limit a step may be whose size is tried for the first time."""


def _seconds(tokens: int, speed: float = 1.0) -> float:
    """Of a step without attention: 3 ms and 10 us a token, padded; `speed` times as fast."""
    return (0.003 + 1e-5 * min(bucket for bucket in BUCKETS if bucket >= tokens)) / speed


def _prompts(pace: Pace, speed: float = 1.0, rows: int = 4, steps: int = 150) -> list[float]:
    """Steps of decode rows beside a prompt without end; returns what they took."""
    times = []
    for _ in range(steps):
        tokens = pace.most_tokens(rows, 0)
        times.append(_seconds(tokens, speed))
        pace.took(tokens, 0, times[-1])
    return times


def _larger(tokens: int) -> int:
    return BUCKETS[BUCKETS.index(tokens) + 1]


def test_before_anything_was_measured_and_without_decode_rows_a_step_takes_all() -> None:
    pace = Pace(PADDED)
    assert pace.most_tokens(4, 0) == 4096
    pace.took(16, 0, 9.0)
    assert pace.most_tokens(0, 0) == 4096


@pytest.mark.parametrize("first", [1, 16, 700, 4096], ids="first {}".format)
@pytest.mark.parametrize("speed", [0.1, 1.0, 2.0], ids="speed {}".format)
def test_it_finds_the_largest_step_within_the_limit(first: int, speed: float) -> None:
    pace = Pace(PADDED)
    pace.took(first, 0, _seconds(first, speed))
    times, tokens = _prompts(pace, speed), pace.most_tokens(4, 0)
    limit = max(_CALM, _SHARE * _seconds(4, speed))
    assert _seconds(tokens, speed) <= limit < _seconds(_larger(tokens), speed)
    assert max(times) <= UNKNOWN_COSTS * limit, "nor was a step on the way much too long"
    assert sum(time > limit for time in times) <= 3, "what was too long is not tried all the time"


def test_a_larger_step_whose_tokens_are_dearer_is_left() -> None:
    pace = Pace(PADDED)
    for tokens in BUCKETS:
        pace.took(tokens, 0, _seconds(tokens) + (0.004 if tokens > 512 else 0))
    assert pace.most_tokens(4, 0) == 512
    assert _seconds(768) + 0.004 < _CALM


def test_beside_longer_decode_steps_prompts_may_take_longer() -> None:
    pace = Pace(replace(PADDED, key_cost=2e-5))
    _prompts(pace)
    attention = 0.009
    tokens = pace.most_tokens(4, round(attention / (2e-5 * _seconds(16))))
    limit = _SHARE * (_seconds(4) + attention)
    assert _seconds(tokens) + attention <= limit < _seconds(_larger(tokens)) + attention


def test_what_keys_cost_is_not_counted_as_the_sizes_cost() -> None:
    key_cost, keys = 2e-5, 50_000
    pace = Pace(replace(PADDED, key_cost=key_cost))
    pace.took(16, 0, _seconds(16))
    for _ in range(50):
        pace.took(64, keys, _seconds(64) + key_cost * _seconds(16) * keys)
    assert pace._base[BUCKETS.index(64)] == pytest.approx(_seconds(64))


def test_a_stalled_machine_is_forgotten_and_another_speed_learned() -> None:
    pace = Pace(PADDED)
    _prompts(pace)
    settled = pace.most_tokens(4, 0)
    pace.took(settled, 0, 5.0)
    assert pace.most_tokens(4, 0) >= BUCKETS[BUCKETS.index(settled) - 1], "one step says little"
    for speed in (1.0, 0.5, 1.0):
        _prompts(pace, speed, steps=400)
        tokens = pace.most_tokens(4, 0)
        assert _seconds(tokens, speed) <= _CALM < _seconds(_larger(tokens), speed)
        assert (tokens == settled) == (speed == 1.0)


@given(st.randoms(use_true_random=False), st.booleans())
def test_there_is_always_room_for_a_prompt_and_never_more_than_a_step(random: Random, padded: bool) -> None:
    pace = Pace(replace(PADDED if padded else GEOMETRY, key_cost=random.choice([0.0, 1e-5])))
    for _ in range(random.randint(0, 30)):
        pace.took(random.randint(1, 4096), random.choice([0, 10**6]), random.choice([0.0, 1e-9, 0.05, 1e4]))
        rows = random.randint(1, 255)
        assert rows < pace.most_tokens(rows, random.choice([0, 10**6])) <= 4096
        tokens = random.randint(rows + 1, 4096)
        excess = pace.excess(tokens, rows)
        assert rows < tokens - excess <= tokens
        assert not excess or (padded and tokens - excess in BUCKETS)


def test_a_step_a_little_over_a_size_is_cut_where_that_is_sooner_done() -> None:
    pace = Pace(PADDED)
    assert pace.excess(1034, 10) == 0, "nothing is known"
    for tokens in BUCKETS:
        pace.took(tokens, 0, _seconds(tokens))
    assert pace.excess(1024, 10) == 0
    assert pace.excess(1034, 10) == 10
    assert pace.excess(1500, 10) == 0, "the rest would take a step longer than what is saved"
    assert pace.excess(20, 17) == 0, "of 16 tokens, 17 rows"
    unpadded = Pace(GEOMETRY)
    unpadded.took(1024, 0, 1.0)
    assert unpadded.excess(1034, 10) == 0


def _shapes(scheduler: Scheduler, steps: int) -> list[list[tuple[int, int, bool]]]:
    shapes = []
    for _ in range(steps):
        schedule = scheduler.schedule()
        shapes.append([(part.sequence.id, part.num_tokens, part.samples) for part in schedule])
        for sequence in scheduler.started(schedule):
            sequence.append(1)
    scheduler.check()
    return shapes


def _submit(scheduler: Scheduler, id_: int, length: int) -> None:
    scheduler.submit(Submit(id_, array("i", [id_] * length), SamplingParams(), 9))


def test_the_scheduler_fills_sizes_and_leaves_the_rest_of_the_youngest_prompt() -> None:
    scheduler = Scheduler(PADDED)
    for tokens in BUCKETS:
        scheduler.pace.took(tokens, 0, _seconds(tokens))
    _submit(scheduler, 1, 500)
    _submit(scheduler, 2, 530)
    assert _shapes(scheduler, 3) == [
        [(1, 500, True), (2, 524, False)],
        [(1, 1, True), (2, 6, True)],
        [(1, 1, True), (2, 1, True)],
    ]


def test_the_scheduler_keeps_steps_beside_decode_rows_short_and_others_long() -> None:
    scheduler = Scheduler(PADDED)
    for tokens in BUCKETS:
        scheduler.pace.took(tokens, 0, _seconds(tokens))
    _submit(scheduler, 1, 4096)
    _submit(scheduler, 2, 2500)
    assert _shapes(scheduler, 4) == [
        [(1, 4096, True)],
        [(1, 1, True), (2, 1023, False)],
        [(1, 1, True), (2, 1023, False)],
        [(1, 1, True), (2, 454, True)],
    ]


@pytest.mark.parametrize("overlaps", [False, True], ids=["in turn", "overlapping"])
def test_the_engine_tells_what_each_step_took(overlaps: bool) -> None:
    told: list[tuple[int, int, float]] = []
    now = 0.0

    class Slow(FakeRunner):
        def finish(self, handle: object):  # type: ignore[no-untyped-def]
            nonlocal now
            now += 0.25
            return super().finish(handle)

    limits = Geometry(64, 8, 4, 64, pages=99, page_size=4, vocab_size=7)
    engine = Engine(Slow(limits, overlaps), lambda: now)
    engine.scheduler.pace.took = lambda tokens, keys, seconds: told.append((tokens, keys, seconds))  # type: ignore[method-assign]
    engine.submit(Submit(1, array("i", [1]), SamplingParams(temperature=0.0), 4))
    engine.submit(Submit(2, array("i", [2] * 5), SamplingParams(temperature=0.0), 1))
    while engine.has_work:
        engine.step()
    assert told == [(4, 1, 0.25), (3, 2, 0.25), (1, 3, 0.25), (1, 4, 0.25)]
