"""The simulation gives back the figures that it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.batches import Pages, Part, make_batch
from bench.simulate import BUCKETS, HOST_SECONDS, Request, Simulation
from bench.step_model import StepModel

STEP = json.loads((Path(__file__).parents[2] / "bench/results/h100/step.json").read_text())


@pytest.fixture(scope="module")
def model() -> StepModel:
    return StepModel(STEP, BUCKETS)


@pytest.mark.parametrize("row", STEP["prefill"], ids=lambda row: row["tokens"])
def test_a_prompt_alone_takes_what_was_measured(model: StepModel, row: dict[str, float]) -> None:
    (record,) = Simulation(model).open_loop([Request(0.0, int(row["tokens"]), 1)])
    assert record.chunks[0] - HOST_SECONDS == pytest.approx(row["seconds"], rel=0.02)


@pytest.mark.parametrize("row", STEP["decode"], ids=lambda row: f"{row['batch']}x{row['context']}")
def test_decode_steps_take_what_was_measured(model: StepModel, row: dict[str, float]) -> None:
    batch, context = int(row["batch"]), int(row["context"])
    pages = Pages(batch * -(-(context + 1) // 16), 16)
    sequences = [pages.sequence(np.zeros(context + 1, np.int32)) for _ in range(batch)]
    for sequence in sequences:
        sequence.computed = context
    decode, _ = make_batch([Part(sequence, 1) for sequence in sequences], 16)
    assert model.seconds(decode) == pytest.approx(row["seconds"], rel=0.1)


def test_nothing_is_lost(model: StepModel) -> None:
    requests = [Request(0.001 * i, 100 + 50 * i, 1 + i) for i in range(40)]
    for records in (Simulation(model).open_loop(requests), Simulation(model).closed_loop(7, requests)):
        assert [record.completion_tokens for record in records] == [request.output for request in requests]
        assert all(record.due <= record.chunks[0] <= record.ended for record in records)


def test_a_flood_is_served_as_fast_as_with_the_best_fixed_size(model: StepModel) -> None:
    """It never lets sequences decode alone, so what they cost is to be found out beside prompts."""
    seconds = {}
    for fixed in (None, 512, 1024, 2048):
        records = Simulation(model, fixed).closed_loop(128, [Request(0.0, 1024, 64)] * 384)
        seconds[fixed] = max(record.ended for record in records)
    paced = seconds.pop(None)
    assert paced <= 1.03 * min(seconds.values())
