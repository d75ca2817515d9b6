"""Load arrives as told, from several processes, and every request is accounted for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from bench.serve import prompts
from bench.serve.load import Clients, poisson
from bench.serve.statistics import summary
from bench.serve.worker import ClosedLoop, OpenLoop, Series, Target
from tests.bench.fake_openai import GAP_SECONDS, FakeOpenAI

_WORDS: prompts.Vocabulary = [" a", " b"]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with Clients(2) as clients:
        yield clients


def test_poisson_gaps_are_exponential() -> None:
    n, rate = 20_000, 50.0
    arrivals = poisson(rate, n, random.Random())
    gaps = np.diff(arrivals)
    assert len(arrivals) == n
    assert arrivals[0] >= 0
    assert arrivals[-1] <= n / rate
    assert np.mean(gaps) == pytest.approx(1 / rate, rel=0.05)
    for quantile in (0.1, 0.5, 0.9, 0.99):  # of the exponential distribution: -ln(1 - q) / rate
        assert np.quantile(gaps, quantile) == pytest.approx(-np.log(1 - quantile) / rate, rel=0.15)


def test_open_loop(server: FakeOpenAI, clients: Clients) -> None:
    arrivals = [[0.0, 0.05, 0.3], [0.02, 0.1]]
    before = len(server.bodies)
    load = clients.run(
        Target(server.url, "ok", _WORDS, 5), [OpenLoop(part, 7, 4, seed) for seed, part in enumerate(arrivals)]
    )
    assert [r.failure for r in load.records] == [None] * 5
    first, second = load.records[:3], load.records[3:]
    assert [r.due - first[0].due for r in first] == pytest.approx(arrivals[0], abs=1e-6)
    assert second[1].due - second[0].due == pytest.approx(0.08, abs=1e-6)
    assert all(r.sent >= r.due for r in load.records)
    assert load.client_seconds > 0
    bodies = server.bodies[before:]
    assert len({body["prompt"] for body in bodies}) == 5
    for body in bodies:
        assert len(body["prompt"]) == 2 * 7
        assert (body["max_tokens"], body["temperature"]) == (4, 0)
        assert body["ignore_eos"]
        assert body["stream_options"] == {"include_usage": True}


def test_slow_answers_do_not_hold_up_arrivals(server: FakeOpenAI, clients: Clients) -> None:
    load = clients.run(Target(server.url, "hang", _WORDS, 1.0), [OpenLoop([0.0, 0.1, 0.2], 1, 1, 0)] * 2)
    found = summary(load)
    assert found["failures"] == {"timeout": 6}
    assert found["ttft_ms"]["p50"] >= 1000
    assert max(r.sent for r in load.records) < min(r.ended for r in load.records)


def test_closed_loop(server: FakeOpenAI, clients: Clients) -> None:
    seconds, output = 0.5, 5
    works = [ClosedLoop(users, seconds, 3, output, seed) for seed, users in enumerate(clients.share(3))]
    assert sorted(w.users for w in works) == [1, 2]
    records = clients.run(Target(server.url, "ok", _WORDS, 5), works).records
    starts = sorted(r.sent for r in records)
    assert {r.failure for r in records} == {None}
    assert 3 * 2 <= len(records) <= 3 * (1 + seconds / (output * GAP_SECONDS))
    assert starts[-1] - starts[0] <= seconds + 0.5  # none is begun later
    for at in starts:
        assert sum(r.sent <= at < r.ended for r in records) <= 3


def test_a_user_of_a_dead_server_asks_at_least_once(clients: Clients) -> None:
    target = Target("http://127.0.0.1:9/v1/completions", "ok", _WORDS, 5)
    found = summary(clients.run(target, [ClosedLoop(share, 0.0, 3, 5, 0) for share in clients.share(1)]))
    assert (found["n"], found["failures"]) == (1, {"connection": 1})


def test_series_keeps_order(server: FakeOpenAI, clients: Clients) -> None:
    chance = random.Random()
    bodies = [prompts.body("ok", _WORDS, n, 1, chance) for n in (1, 2, 3)]
    before = len(server.bodies)
    records = clients.run(Target(server.url, "ok", _WORDS, 5), [Series(bodies)]).records
    assert [len(body["prompt"]) for body in server.bodies[before:]] == [2, 4, 6]
    assert all(a.ended <= b.sent for a, b in pairwise(records))


def test_progress_is_counted(server: FakeOpenAI) -> None:
    seen: list[tuple[int, int, int]] = []
    with Clients(2, lambda *counts: seen.append(counts)) as clients:
        clients.run(Target(server.url, "refuse", _WORDS, 5), [OpenLoop([0.0, 0.3], 1, 1, 0)] * 2)
    assert seen[-1] == (4, 4, 4)
    assert seen == sorted(seen)
