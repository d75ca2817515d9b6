"""Figures are what their definitions say, and failures cannot hide."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from bench.serve.client import Record
from bench.serve.load import Load
from bench.serve.statistics import percentiles, summary


def _record(sent: float, chunks: list[float], **fields: Any) -> Record:
    ended = fields.pop("ended", chunks[-1] if chunks else sent)
    return Record(due=sent, sent=sent, chunks=chunks, ended=ended, **fields)


def test_percentiles_lie_between_the_neighbours() -> None:
    chance = random.Random()
    values = [chance.expovariate(1) for _ in range(chance.randrange(50, 500))]
    found = percentiles(values)
    assert found is not None
    ordered = sorted(values)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        at = share * (len(values) - 1)
        low, high = ordered[int(at)], ordered[min(int(at) + 1, len(values) - 1)]
        assert low - 1e-3 <= found[name] <= high + 1e-3
    assert found["max"] == pytest.approx(max(values), abs=1e-3)
    assert found["mean"] == pytest.approx(np.mean(values), abs=1e-3)
    assert percentiles([]) is None


def test_a_level() -> None:
    good = [
        _record(0.0, [0.1, 0.2, 0.3], prompt_tokens=10, completion_tokens=3, cached_tokens=0),
        _record(1.0, [1.5, 1.5, 1.9], prompt_tokens=10, completion_tokens=5, cached_tokens=4),
    ]
    found = summary(Load(good, client_seconds=0.95))
    assert (found["n"], found["failed"], found["seconds"]) == (2, 0, 1.9)
    assert found["out_tok_s"] == pytest.approx(8 / 1.9, abs=0.1)
    assert found["in_tok_s"] == pytest.approx(20 / 1.9, abs=0.1)
    assert found["ttft_ms"]["max"] == 500
    assert found["ttft_ms"]["p50"] == 300
    assert found["tpot_ms"]["max"] == 100  # 200 ms over two gaps, and 400 over four
    assert found["itl_ms"]["max"] == 400
    assert found["e2e_ms"]["max"] == 900
    assert found["cached_tokens"] == 4
    assert found["client_cpu"] == 0.5


def test_failures_count_with_what_they_gave() -> None:
    records = [
        _record(0.0, [0.1, 0.2], prompt_tokens=10, completion_tokens=2),
        _record(0.0, [0.4, 0.5], failure="cut", message="gone", ended=0.6),
        _record(0.0, [], failure="http 429", message="busy", ended=0.001),
        _record(0.0, [], failure="timeout", message="late", ended=30.0),
        _record(0.0, [5.0], failure="timeout", message="late", ended=30.0),
    ]
    found = summary(Load(records, 1.0))
    assert (found["n"], found["failed"]) == (5, 4)
    assert found["failures"] == {"cut": 1, "http 429": 1, "timeout": 2}
    assert found["messages"] == {"cut": "gone", "http 429": "busy", "timeout": "late"}
    assert found["ttft_ms"]["max"] == 30_000  # never came: as long as it was waited for
    assert found["ttft_ms"]["p50"] == pytest.approx((400 + 5000) / 2)  # and the quick refusal flatters nobody
    assert found["itl_ms"]["max"] == 25_000
    assert found["e2e_ms"]["max"] == 30_000
    assert found["tpot_ms"]["max"] == 100
    assert found["out_tok_s"] == pytest.approx(5 / 30, abs=0.1)
    assert found["req_s"] == pytest.approx(1 / 30, abs=1e-3)


def test_nothing_but_failures() -> None:
    found = summary(Load([_record(0.0, [], failure="http 503", message="", ended=0.1)], 0.0))
    assert found["failed"] == 1
    assert found["ttft_ms"] is None
    assert found["cached_tokens"] is None
