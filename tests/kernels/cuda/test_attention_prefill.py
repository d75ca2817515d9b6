"""Prefill attention against float64: ragged chunks, cached prefixes, keys split over programs, unaligned starts."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, INTERPRETED, ROUNDING, relative_error, torch

# isort: split

from oi.codegen.cuda.kernels.attention import Prefill
from oi.codegen.cuda.tuning.attention_launch import PrefillLaunch
from tests.kernels.cuda.paged import make_call, random_mix, reference

pytestmark = pytest.mark.gpu

DIM = 32 if INTERPRETED else 128
PORTABLE = [
    Prefill(hopper=False, block=32, stages=2, num_warps=8, programs=3),
    Prefill(hopper=False, block=64, stages=3, num_warps=8, programs=132),
]
HOPPER = [Prefill(hopper=True, block=128, stages=2, num_warps=4, programs=p) for p in (5, 132)]
LENS = [
    ([130, 1, 40, 0, 2, 33], [130, 90, 301, 0, 2, 100]),
    ([17], [640]),
]
LONG = [
    ([130, 1, 40, 0, 2, 33], [130, 900, 300, 0, 2, 1000]),
    ([17], [16400]),
    ([500, 600], [500, 3001]),
    ([1111], [1111]),
    ([16], [16]),
]


def is_hopper() -> bool:
    return not INTERPRETED and torch.cuda.get_device_capability() == (9, 0)


@pytest.mark.parametrize("heads", [(4, 2), (5, 1)] if INTERPRETED else [(32, 8), (16, 8), (40, 8), (64, 8)])
@pytest.mark.parametrize("config", PORTABLE + HOPPER, ids=str)
@pytest.mark.parametrize("lens", LENS if INTERPRETED else LONG, ids=str)
def test_prefill(lens: tuple[list[int], list[int]], config: Prefill, heads: tuple[int, int]) -> None:
    if config.hopper and not is_hopper():
        pytest.skip("needs an sm_90 GPU")
    check(
        PrefillLaunch(make_call(*lens, device=DEVICE, dtype=DTYPE, heads=heads, head_dim=DIM, spare_tokens=5), config)
    )


@pytest.mark.parametrize("config", PORTABLE + HOPPER, ids=str)
@pytest.mark.parametrize(
    ("decodes", "prefills", "padding"),
    [(3, 2, 3), (0, 2, 1), (0, 1, 7), (3, 0, 2), (0, 0, 4), *([] if INTERPRETED else [(60, 8, 188)])],
)
def test_padded_mix(decodes: int, prefills: int, padding: int, config: Prefill) -> None:
    """Padded sequences anywhere, steps without any prefill, contexts that end at the ends of pages and blocks."""
    if config.hopper and not is_hopper():
        pytest.skip("needs an sm_90 GPU")
    heads = (4, 2) if INTERPRETED else (32, 8)
    for longest in (70,) if INTERPRETED else (70, 300, 900):
        lens = random_mix(decodes, prefills, padding, longest)
        call = make_call(*lens, device=DEVICE, dtype=DTYPE, heads=heads, head_dim=DIM, spare_tokens=5, spare_pages=2)
        check(PrefillLaunch(call, config))


@pytest.mark.skipif(INTERPRETED, reason="as test_prefill there")
@pytest.mark.parametrize("config", PORTABLE[1:] + HOPPER[1:], ids=str)
def test_heads_of_64(config: Prefill) -> None:
    if config.hopper and not is_hopper():
        pytest.skip("needs an sm_90 GPU")
    check(PrefillLaunch(make_call(*LONG[0], heads=(8, 2), head_dim=64, spare_tokens=5), config))


def check(launch: PrefillLaunch) -> None:
    """Right, of this step's prefill rows only, twice the same."""
    launch.plan()
    launch.run()
    expected, own = reference(launch.call, decode=False)
    if own.any():
        assert relative_error(launch.y[own], expected[own]) < ROUNDING
    assert launch.y[~own].isnan().all(), "rows of other sequences were written"
    first = launch.y.clone()
    launch.y.fill_(torch.nan)
    launch.run()
    assert torch.equal(launch.y[own], first[own]), "two runs differ"
    assert not launch.scratch["arrivals"].any()
