"""Prefill attention against float64: ragged chunks, cached prefixes, keys split over programs, unaligned starts."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, INTERPRETED, ROUNDING, relative_error, torch

# isort: split

from oi.codegen.cuda.kernels.attention import Prefill
from oi.codegen.cuda.tuning.attention_launch import DecodeLaunch, PrefillLaunch
from oi.codegen.cuda.tuning.attention_table import choose_decode, choose_prefill
from oi.codegen.cuda.tuning.rows_launch import qkv_norm_rope_write
from tests.kernels.cuda.paged import check_attention, make_call, random_mix, reference

pytestmark = pytest.mark.gpu

DIM = 32 if INTERPRETED else 128
PORTABLE = [
    Prefill(hopper=False, block=32, stages=2, num_warps=8, programs=3),
    Prefill(hopper=False, block=64, stages=3, num_warps=8, programs=132),
]
FEW = [Prefill(hopper=True, block=64, stages=6, num_warps=4, programs=p, few=True) for p in (5, 132)]
HOPPER = [Prefill(hopper=True, block=128, stages=2, num_warps=4, programs=p) for p in (5, 132)] + FEW
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
FEW_LENS = [
    ([16], [16384]),
    ([32], [16400]),
    ([2], [4099]),
    ([5, 11], [16000, 15]),
    ([1, 9, 1, 0, 2, 3], [900, 5000, 16, 0, 2, 1000]),
    ([2] * 16, list(range(50, 850, 50))),
    ([1, 0, 1], [500, 0, 7]),
]
HEADS = [(4, 2), (5, 1)] if INTERPRETED else [(32, 8), (16, 8), (40, 8), (64, 8)]


def is_hopper() -> bool:
    return not INTERPRETED and torch.cuda.get_device_capability() == (9, 0)


def name(config: Prefill) -> str:
    kind = "few" if config.few else "hopper" if config.hopper else "portable"
    return f"{kind}-{config.block}x{config.stages}-{config.programs}"


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("config", PORTABLE + HOPPER, ids=name)
@pytest.mark.parametrize("lens", LENS if INTERPRETED else LONG, ids=str)
def test_prefill(lens: tuple[list[int], list[int]], config: Prefill, heads: tuple[int, int]) -> None:
    if config.hopper and not is_hopper():
        pytest.skip("needs an sm_90 GPU")
    check(
        PrefillLaunch(make_call(*lens, device=DEVICE, dtype=DTYPE, heads=heads, head_dim=DIM, spare_tokens=5), config)
    )


@pytest.mark.parametrize("config", PORTABLE + HOPPER, ids=name)
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


@pytest.mark.parametrize("heads", [(32, 8), (16, 8), (40, 8)])
@pytest.mark.parametrize("config", FEW, ids=name)
@pytest.mark.parametrize("lens", FEW_LENS, ids=str)
def test_few_queries(lens: tuple[list[int], list[int]], config: Prefill, heads: tuple[int, int]) -> None:
    if not is_hopper():
        pytest.skip("needs an sm_90 GPU")
    check(PrefillLaunch(make_call(*lens, heads=heads, spare_tokens=5, spare_pages=2), config))


@pytest.mark.parametrize("tokens", [16, 32, 64])
@pytest.mark.parametrize(
    "lens", [([16], [16384]), ([1, 7, 0, 2, 1, 4], [700, 5000, 0, 2, 16, 1000]), ([1, 1], [300, 65])], ids=str
)
def test_within_a_step(lens: tuple[list[int], list[int]], tokens: int) -> None:
    """Started before the kernels that write the newest keys, the queries, and other sequences' rows have ended."""
    if not is_hopper():
        pytest.skip("needs an sm_90 GPU")
    call = make_call(*lens, heads=(32, 8), spare_tokens=tokens - sum(lens[0]))
    decode = DecodeLaunch(call, choose_decode(16), pdl=True)
    prefill = PrefillLaunch(call, choose_prefill(tokens), pdl=True)
    prefill.y = decode.y
    position = torch.cat([torch.arange(c - n, c) for n, c in zip(*lens, strict=True)]).to(DEVICE)
    sequence = torch.arange(call.sequences, device=DEVICE).repeat_interleave(call.query_lens.long())
    pages, offsets = call.page_table[sequence, position // 16].long(), position % 16
    slots = torch.full((tokens,), -1, dtype=torch.int32, device=DEVICE)
    slots[: len(position)] = (pages * 16 + offsets).to(torch.int32)
    qkv = torch.randn(tokens, 48 * 128, device=DEVICE, dtype=DTYPE)
    weight = torch.randn(128, device=DEVICE, dtype=DTYPE)
    angle = torch.rand(tokens, 64, device=DEVICE) * 6
    angles = torch.cat((angle.cos(), angle.sin()), 1)
    busy = torch.randn(4096, 4096, device=DEVICE)
    for _ in range(3):  # the first time it is compiled, and nothing overlaps
        decode.plan()
        prefill.plan()
        call.kv[pages, :, :, :, offsets] = torch.nan
        call.q.fill_(torch.nan)
        decode.y.fill_(torch.nan)
        torch.cuda.synchronize()
        _ = busy @ busy  # all of the following is queued behind it
        qkv_norm_rope_write(qkv, weight, weight, angles, slots, call.kv, call.q, call.layer, pdl=True)
        decode.run()
        prefill.run()
        for kind in (True, False):
            expected, own = reference(call, decode=kind)
            if own.any():
                assert relative_error(decode.y[own], expected[own]) < ROUNDING
        assert decode.y[len(position) :].isnan().all(), "rows of no sequence were written"


@pytest.mark.skipif(INTERPRETED, reason="as test_prefill there")
@pytest.mark.parametrize("config", PORTABLE[1:] + HOPPER[1:], ids=name)
def test_heads_of_64(config: Prefill) -> None:
    if config.hopper and not is_hopper():
        pytest.skip("needs an sm_90 GPU")
    check(PrefillLaunch(make_call(*LONG[0], heads=(8, 2), head_dim=64, spare_tokens=5), config))


def check(launch: PrefillLaunch) -> None:
    check_attention(launch, decode=False)
    assert launch.config.few or not launch.scratch["arrivals"].any()
