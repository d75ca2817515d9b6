"""The sampler's reference against a second writing of its definition, and against known answers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oi.ir import ops
from oi.ir.reference import REFERENCE, Array

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "uniform": 0.5}


def sample(logits: Array, edits: list[dict[int, tuple[float, float]]] | None = None, **params: Any) -> list[int]:
    """Rows of logits; parameters for all rows or one each; edits by row: token → (scale, add)."""
    rows = len(logits)
    edits = edits or [{}] * rows
    lens = [len(row) for row in edits]
    flat = [(token, scale, add) for row in edits for token, (scale, add) in row.items()]
    columns = {name: np.broadcast_to(params.get(name, default), rows) for name, default in PLAIN.items()}
    (tokens,) = REFERENCE[ops.Sample](
        ops.Sample(),
        logits,
        np.array(np.cumsum([0, *lens[:-1]]), np.int32),
        np.array(lens, np.int32),
        np.array([token for token, _, _ in flat], np.int32),
        np.array([scale for _, scale, _ in flat], logits.dtype),
        np.array([add for _, _, add in flat], logits.dtype),
        columns["temperature"].astype(logits.dtype),
        columns["top_k"].astype(np.int32),
        columns["top_p"].astype(logits.dtype),
        columns["min_p"].astype(logits.dtype),
        columns["uniform"].astype(logits.dtype),
    )
    return [int(token) for token in tokens]


def kept(z: Array, temperature: float, top_k: int, top_p: float, min_p: float) -> list[int]:
    """The tokens that may be drawn, by the definition's words: sets and sums, no thresholds carried along."""
    p = np.exp(z / temperature - np.max(z / temperature))
    p /= p.sum()
    keep = [v for v in range(len(p)) if p[v] >= min_p * p.max()]
    if 0 < top_k < len(keep):
        kth = sorted((p[v] for v in keep), reverse=True)[top_k - 1]
        keep = [v for v in keep if p[v] >= kth]
    if top_p < 1:
        total = sum(p[v] for v in keep)
        enough = [t for t in {p[v] for v in keep} if sum(p[v] for v in keep if p[v] >= t) >= top_p * total]
        keep = [v for v in keep if p[v] >= max(enough)]
    return keep


LOGITS = st.lists(st.integers(-8, 8), min_size=2, max_size=12)


@given(
    LOGITS,
    st.sampled_from([0.3, 1.0, 2.5]),
    st.integers(0, 14),
    st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.77, 0.9, 0.99, 1.0]),
    st.sampled_from([0.0, 0.01, 0.1, 0.31, 1.0]),
    st.floats(0, 0.999),
)
@settings(deadline=None, max_examples=400)
def test_draws_by_the_definition(
    logits: list[int], temperature: float, top_k: int, top_p: float, min_p: float, uniform: float
) -> None:
    z = np.array(logits, np.float64)
    # Masses a rounding error away from a threshold may fall on either side.
    nearby = [kept(z, temperature, top_k, top_p * (1 + e), min_p * (1 + e)) for e in (-1e-9, 0, 1e-9)]
    assume(nearby[0] == nearby[1] == nearby[2] or min_p == 1.0 or top_p in (0.0, 1.0))
    keep = nearby[1]
    p = np.exp(z[keep] / temperature - z.max() / temperature)
    cumulative = np.cumsum(p) / p.sum()
    assume(abs(cumulative - uniform).min() > 1e-9)
    expected = keep[int(np.searchsorted(cumulative, uniform, side="right"))]
    found = sample(z[None], temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, uniform=uniform)
    assert found == [expected]


def test_draws_each_token_as_often_as_its_probability_says() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=8)
    p = np.exp(z / 0.7) / np.exp(z / 0.7).sum()
    draws = sample(np.broadcast_to(z, (20_000, 8)), temperature=0.7, uniform=rng.random(20_000))
    found = np.bincount(draws, minlength=8) / 20_000
    assert np.abs(found - p).max() < 4 * np.sqrt(0.25 / 20_000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_answers(dtype: Any) -> None:
    def one(logits: list[float], **params: Any) -> int:
        edits = params.pop("edits", None)
        return sample(np.array([logits], dtype), [edits] if edits else None, **params)[0]

    assert one([1, 3, 3, 2], temperature=0) == 1
    assert one([1, 3, 3, 2], temperature=0, top_k=1, uniform=0.999) == 1
    # Ties stay: two tokens share the first place.
    assert one([1, 3, 3, 2], top_k=1, uniform=0.999) == 2
    assert one([1, 3, 3, 2], top_p=0.0, uniform=0.999) == 2
    assert one([1, 3, 3, 2], min_p=1.0, uniform=0.999) == 2
    # The draw goes in token order, not by probability; 0 and nearly 1 give the ends.
    assert one([0, 9, 0], uniform=0.0) == 0
    assert one([0, 9, 0], uniform=0.9999999) == 2
    # Edits: positive logits are divided, negative ones multiplied, then the sum is added.
    assert one([4, 3, -1], temperature=0, edits={0: (2.0, 0.0)}) == 1
    assert one([-2, -3, -9], temperature=0, edits={0: (2.0, 0.0)}) == 1
    assert one([4, 3, -1], temperature=0, edits={2: (1.0, 100.0), 0: (1.0, 5.0)}) == 2
    assert one([0, 0, 0], temperature=0, edits={0: (1.0, -1.0), 1: (5.0, 0.0)}) == 1


def test_rows_own_their_edits_and_parameters() -> None:
    logits = np.array([[5.0, 1, 0], [5, 1, 0], [5, 1, 0]], np.float64)
    edits = [{0: (1.0, -9.0)}, {}, {0: (1.0, -9.0), 1: (1.0, -9.0)}]
    assert sample(logits, edits, temperature=[0, 0, 0]) == [1, 0, 2]
    assert sample(logits, temperature=[0, 1, 1], top_k=[0, 0, 1], uniform=[0.999, 0.9999, 0.9999]) == [0, 2, 0]


def test_logits_are_not_written_to() -> None:
    logits = np.ones((1, 4))
    sample(logits, [{0: (1.0, 5.0)}])
    np.testing.assert_array_equal(logits, np.ones((1, 4)))
