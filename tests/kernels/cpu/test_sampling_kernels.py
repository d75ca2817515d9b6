"""greedy, sample, log_probs: ties, cuts alone and together, edits, vocabularies of any size."""

from __future__ import annotations

import numpy as np
import pytest

from oi.codegen.cpu.target import CpuTarget
from oi.ir import ops
from oi.ir.types import E, R
from tests.kernels.cpu.harness import TARGETS, Array, Operand, f32, i32, reference, run

SIZES = (5, 77, 1000, 30_011)


def _logits(rng: np.random.Generator, rows: int, size: int) -> Array:
    """Random rows; one with many ties, one flat, one whose largest appears twice."""
    logits = 3 * rng.standard_normal((rows, size)).astype(np.float32)
    logits[1] = np.round(logits[1])
    logits[2] = 0
    logits[3, rng.choice(size, 2, replace=False)] = logits[3].max() + 1
    return logits


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS[:2])
def test_greedy(target: CpuTarget, size: int) -> None:
    logits = _logits(np.random.default_rng(), 6, size)
    (found,) = run(target, ops.Greedy(), f32(logits, R))
    np.testing.assert_array_equal(found, logits.argmax(1))


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("target", TARGETS[:2])
def test_log_probs(target: CpuTarget, size: int) -> None:
    rng = np.random.default_rng()
    operands = f32(_logits(rng, 6, size), R), i32(rng.integers(0, size, 6), R)
    chosen, tokens, top = run(target, ops.LogProbs(k=20), *operands)
    expected_chosen, expected_tokens, expected_top = reference(ops.LogProbs(k=20), *operands)
    np.testing.assert_array_equal(tokens, expected_tokens)
    np.testing.assert_allclose(top, expected_top, atol=2e-5)
    np.testing.assert_allclose(chosen, expected_chosen, atol=2e-5)


@pytest.mark.parametrize("target", TARGETS[:1])
def test_log_probs_of_rising_logits(target: CpuTarget) -> None:
    """Every token belongs among the best so far."""
    logits = f32(np.sort(_logits(np.random.default_rng(), 4, 1000)), R)
    _, tokens, _ = run(target, ops.LogProbs(k=20), logits, i32(np.zeros(4), R))
    np.testing.assert_array_equal(tokens, np.argsort(-logits.array, axis=1, kind="stable")[:, :20])


def _parameters(rng: np.random.Generator, rows: int, size: int) -> list[Operand]:
    """Up to six edits a row and a mixture of all cuts."""
    lens = rng.integers(0, min(size, 7), rows)
    starts = np.cumsum(lens) - lens
    tokens = np.concatenate([rng.choice(size, n, replace=False) for n in lens] + [[0]])
    return [
        i32(starts, R),
        i32(lens, R),
        i32(tokens, E),
        f32(rng.uniform(0.5, 2, len(tokens)), E),
        f32(rng.standard_normal(len(tokens)), E),
        f32(rng.choice([0, 0.3, 1, 2], rows), R),
        i32(rng.choice([0, 1, 3, 50, 10**6], rows), R),
        f32(rng.choice([1, 0.9, 0.5, 0.01], rows), R),
        f32(rng.choice([0, 0.01, 0.5], rows), R),
        f32(rng.random(rows), R),
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS[:2])
def test_sample(target: CpuTarget, size: int) -> None:
    """As the reference in float64, but for draws that fall on the border of two tokens within rounding."""
    rng = np.random.default_rng()
    moved = 0
    for _ in range(20):
        operands = [f32(_logits(rng, 6, size), R), *_parameters(rng, 6, size)]
        (found,), (expected,) = run(target, ops.Sample(), *operands), reference(ops.Sample(), *operands)
        assert ((found >= 0) & (found < size)).all()
        moved += int((found != expected).sum())
    assert moved <= (0 if size < 1000 else 3), f"{moved} of 120 draws differ"


@pytest.mark.parametrize("target", TARGETS[:1])
def test_sample_at_the_ends_of_uniform(target: CpuTarget) -> None:
    """The smallest draw takes the first kept token, the largest the last; neither leaves the kept ones."""
    rng = np.random.default_rng()
    size, rows = 1000, 2
    logits = rng.standard_normal((1, size)).repeat(rows, 0)
    kept = np.sort(np.argsort(-logits[0])[:50])
    operands = [f32(logits, R), *_parameters(rng, rows, size)]
    operands[2] = i32(np.zeros(rows), R)
    operands[6:11] = [
        f32(np.ones(rows), R),
        i32(np.full(rows, 50), R),
        f32(np.ones(rows), R),
        f32(np.zeros(rows), R),
        f32(np.array([0, np.nextafter(np.float32(1), np.float32(0))]), R),
    ]
    (found,) = run(target, ops.Sample(), *operands)
    np.testing.assert_array_equal(found, [kept[0], kept[-1]])
