"""Random numbers equal Random123's vectors; edits kept token by token equal a recount of the whole history."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oi.runtime.errors import RequestError
from oi.runtime.messages import SamplingParams
from oi.runtime.sampling import check_sampling, logit_edits, most_edits, philox4x32, uniform

VOCAB = 12
tokens = st.integers(0, VOCAB - 1)
penalty = st.sampled_from([0.0, 0.5, -1.25])
params = st.builds(
    SamplingParams,
    presence_penalty=penalty,
    frequency_penalty=penalty,
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    logit_bias=st.dictionaries(tokens, st.sampled_from([-100.0, 0.25, 3.0]), max_size=4),
)


def test_philox_equals_the_published_vectors() -> None:
    counter = np.array([[0] * 4, [0xFFFFFFFF] * 4, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]], np.uint32).T
    key = np.array([[0] * 2, [0xFFFFFFFF] * 2, [0xA4093822, 0x299F31D0]], np.uint32).T
    expected = [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]
    assert philox4x32(counter, key).T.tolist() == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**31 - 1)), min_size=1, max_size=9))
def test_a_draw_depends_on_its_seed_and_position_only(keys: list[tuple[int, int]]) -> None:
    seeds, positions = np.array([k[0] for k in keys], np.uint64), np.array([k[1] for k in keys], np.int32)
    together = uniform(seeds, positions)
    alone = [uniform(seeds[i : i + 1], positions[i : i + 1])[0] for i in range(len(keys))]
    assert together.dtype == np.float32
    assert together.tolist() == alone
    assert all(0 <= u < 1 for u in alone)


def test_draws_are_spread_evenly_over_seeds_and_over_positions() -> None:
    n = 50_000
    over_seeds = uniform(np.arange(n, dtype=np.uint64), np.full(n, 7, np.int32))
    over_positions = uniform(np.full(n, 2**63 + 11, np.uint64), np.arange(n, dtype=np.int32))
    for draws in (over_seeds, over_positions):
        counts, _ = np.histogram(draws, bins=50, range=(0, 1))
        chi_square = float(((counts - 1000.0) ** 2 / 1000.0).sum())
        assert 15 < chi_square < 110  # 49 degrees of freedom: outside with a chance of about 1e-6


def _recount(p: SamplingParams, prompt: list[int], generated: list[int]) -> dict[int, tuple[float, float]]:
    times = Counter(generated)
    edits = {}
    for token in range(VOCAB):
        seen = token in times or token in prompt
        scale = p.repetition_penalty if seen else 1.0
        add = p.logit_bias.get(token, 0.0) - p.frequency_penalty * times[token]
        add -= p.presence_penalty if token in times else 0.0
        edits[token] = (float(np.float32(scale)), float(np.float32(add)))
    return edits


@settings(deadline=None)
@given(params, st.lists(tokens, max_size=30), st.lists(tokens, max_size=60))
def test_edits_kept_token_by_token_equal_a_recount(p: SamplingParams, prompt: list[int], generated: list[int]) -> None:
    edits = logit_edits(p, prompt)
    neutral = p.presence_penalty == p.frequency_penalty == 0 and p.repetition_penalty == 1 and not p.logit_bias
    assert (edits is None) == neutral
    if edits is None:
        return
    for n, token in enumerate(generated):
        assert len(edits) <= most_edits(p, prompt, n + 1, VOCAB)
        edits.count(token)
    listed = edits.tokens.tolist()
    assert len(set(listed)) == len(listed) == len(edits)
    assert len(edits) <= most_edits(p, prompt, len(generated) + 1, VOCAB)
    found = dict(zip(listed, zip(edits.scale.tolist(), edits.add.tolist(), strict=True), strict=True))
    expected = _recount(p, prompt, generated)
    assert {token: found.get(token, (1.0, 0.0)) for token in expected} == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", -1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("presence_penalty", float("inf")),
        ("logit_bias", {VOCAB: 1.0}),
        ("logit_bias", {0: float("nan")}),
    ],
)
def test_a_draw_without_meaning_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=field) as refused:
        check_sampling(SamplingParams(**{field: value}), VOCAB)  # type: ignore[arg-type]
    assert refused.value.param == field
