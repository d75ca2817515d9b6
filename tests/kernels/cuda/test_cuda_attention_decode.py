"""Decode attention against float64, over batches whose work splits in every way."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, INTERPRETED, ROUNDING, relative_error, torch

# isort: split

from oi.codegen.cuda.kernels.attention import Decode
from oi.codegen.cuda.tuning.attention_launch import DecodeLaunch
from oi.codegen.cuda.tuning.attention_table import choose_decode
from tests.kernels.cuda.paged import make_call, reference

pytestmark = pytest.mark.gpu

DIM = 32 if INTERPRETED else 128
LENS = ([1, 0, 1, 5, 1, 70, 1], [370, 0, 1, 50, 130, 200, 64])
LONG = ([1, 1, 0, 2, 1, 1], [16000, 1, 0, 9, 16, 3700])


@pytest.mark.parametrize("heads", [(4, 2), (10, 2), (2, 2)] if INTERPRETED else [(32, 8), (16, 8), (40, 8), (64, 8)])
@pytest.mark.parametrize("programs", [3, 7, 20, 132, 396])
@pytest.mark.parametrize("lens", [LENS] if INTERPRETED else [LENS, LONG], ids=str)
def test_any_split(lens: tuple[list[int], list[int]], programs: int, heads: tuple[int, int]) -> None:
    call = make_call(*lens, device=DEVICE, dtype=DTYPE, heads=heads, head_dim=DIM, spare_tokens=2)
    launch = DecodeLaunch(call, Decode(block=32, stages=4, num_warps=4, programs=programs))
    launch.plan()
    launch.run()
    expected, own = reference(call, decode=True)
    assert relative_error(launch.y[own], expected[own]) < ROUNDING
    assert launch.y[~own].isnan().all(), "rows of other sequences were written"
    first = launch.y.clone()
    launch.y.fill_(torch.nan)
    launch.run()
    assert torch.equal(launch.y[own], first[own]), "two runs differ"
    assert not launch.scratch["arrivals"].any()


@pytest.mark.skipif(INTERPRETED, reason="large")
@pytest.mark.parametrize("sequences", [1, 8, 64, 256])
def test_chosen_launch(sequences: int) -> None:
    contexts = torch.randint(1, 1500, (sequences,)).tolist()
    call = make_call([1] * sequences, contexts, heads=(32, 8))
    launch = DecodeLaunch(call, choose_decode(sequences), pdl=True)
    launch.plan()
    torch.cuda.synchronize()
    launch.run()
    expected, own = reference(call, decode=True)
    assert relative_error(launch.y[own], expected[own]) < ROUNDING
