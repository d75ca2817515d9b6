"""Decode attention against float64, over batches whose work splits in every way."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, INTERPRETED, ROUNDING, relative_error, torch

# isort: split

from oi.codegen.cuda.kernels.attention import Decode
from oi.codegen.cuda.tuning.attention_launch import DecodeLaunch, Qkv
from oi.codegen.cuda.tuning.attention_table import choose_decode
from oi.codegen.cuda.tuning.rows_launch import qkv_norm_rope_write
from tests.kernels.cuda.paged import check_attention, make_call, random_mix, reference
from tests.kernels.cuda.row_reference import rms_norm_reference, rope_reference

pytestmark = pytest.mark.gpu

DIM = 32 if INTERPRETED else 128
LENS = ([1, 0, 1, 5, 1, 70, 1], [370, 0, 1, 50, 130, 200, 64])
LONG = ([1, 1, 0, 2, 1, 1], [16000, 1, 0, 9, 16, 3700])
IS_HOPPER = not INTERPRETED and torch.cuda.get_device_capability() == (9, 0)
HEADS = [(4, 2), (10, 2), (2, 2)] if INTERPRETED else [(32, 8), (16, 8), (40, 8), (64, 8)]


def config_of(kind: str, programs: int) -> Decode:
    if kind == "portable":
        return Decode(hopper=False, block=32, stages=4, num_warps=4, programs=programs)
    if not IS_HOPPER:
        pytest.skip("needs an sm_90 GPU")
    return Decode(hopper=True, block=64, stages=3, num_warps=4, programs=programs)


def check(launch: DecodeLaunch) -> None:
    check_attention(launch, decode=True)
    assert not launch.scratch["arrivals"].any()


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("programs", [3, 7, 50] if INTERPRETED else [3, 7, 20, 132, 396])
@pytest.mark.parametrize("kind", ["portable", "hopper"])
@pytest.mark.parametrize("lens", [LENS] if INTERPRETED else [LENS, LONG], ids=str)
def test_any_split(lens: tuple[list[int], list[int]], kind: str, programs: int, heads: tuple[int, int]) -> None:
    config = config_of(kind, programs)
    check(DecodeLaunch(make_call(*lens, device=DEVICE, dtype=DTYPE, heads=heads, head_dim=DIM, spare_tokens=2), config))


@pytest.mark.parametrize("programs", [5] if INTERPRETED else [5, 132])
@pytest.mark.parametrize("kind", ["portable", "hopper"])
@pytest.mark.parametrize(
    ("decodes", "prefills", "padding"),
    [(4, 0, 4), (3, 2, 3), (1, 0, 7), (0, 3, 2), (0, 0, 4), *([] if INTERPRETED else [(60, 4, 192), (250, 0, 6)])],
)
def test_padded_mix(decodes: int, prefills: int, padding: int, kind: str, programs: int) -> None:
    """Padded sequences anywhere, steps without any decode, contexts that end at the ends of pages and blocks."""
    config = config_of(kind, programs)
    for longest in (140,) if INTERPRETED else (70, 300, 900):
        lens = random_mix(decodes, prefills, padding, longest)
        call = make_call(*lens, device=DEVICE, dtype=DTYPE, heads=HEADS[0], head_dim=DIM, spare_tokens=3, spare_pages=2)
        check(DecodeLaunch(call, config))


@pytest.mark.skipif(INTERPRETED, reason="as test_any_split there")
@pytest.mark.parametrize("kind", ["portable", "hopper"])
def test_heads_of_64(kind: str) -> None:
    check(DecodeLaunch(make_call(*LENS, heads=(8, 2), head_dim=64, spare_tokens=2), config_of(kind, 20)))


@pytest.mark.skipif(INTERPRETED, reason="large")
@pytest.mark.parametrize("sequences", [1, 8, 64, 256])
def test_behind_the_kernel_that_writes_the_newest(sequences: int) -> None:
    """As a step does it: started before that kernel has ended."""
    contexts = torch.randint(1, 1500, (sequences,)).tolist()
    call = make_call([1] * sequences, contexts, heads=(32, 8))
    launch = DecodeLaunch(call, choose_decode(sequences), pdl=True)
    launch.plan()
    newest = call.context_lens.long() - 1
    pages = call.page_table[torch.arange(sequences, device=DEVICE), newest // 16].long()
    call.kv[pages, :, :, :, newest % 16] = torch.nan
    slots = (pages * 16 + newest % 16).to(torch.int32)
    qkv = torch.randn(sequences, 48 * 128, device=DEVICE, dtype=DTYPE)
    weight = torch.randn(128, device=DEVICE, dtype=DTYPE)
    angle = torch.rand(sequences, 64, device=DEVICE) * 6
    angles = torch.cat((angle.cos(), angle.sin()), 1)
    call.q.fill_(torch.nan)
    torch.cuda.synchronize()
    qkv_norm_rope_write(qkv, weight, weight, angles, slots, call.kv, call.q, call.layer, pdl=True)
    launch.run()
    expected, own = reference(call, decode=True)
    assert relative_error(launch.y[own], expected[own]) < ROUNDING


@pytest.mark.skipif(not IS_HOPPER, reason="needs an sm_90 GPU")
@pytest.mark.parametrize("programs", [5, 132])
@pytest.mark.parametrize("heads", HEADS)
def test_with_qkv_norm_rope_write(heads: tuple[int, int], programs: int) -> None:
    q_heads, kv_heads = heads
    lens = random_mix(20, 0, 4, 400)
    call = make_call(*lens, heads=heads, spare_tokens=4)
    tokens = len(call.q)
    qkv = torch.randn(tokens, (q_heads + 2 * kv_heads) * 128, device=DEVICE, dtype=DTYPE)
    q_weight, k_weight = (torch.randn(128, device=DEVICE, dtype=DTYPE) for _ in range(2))
    angle = torch.rand(tokens, 64, device=DEVICE) * 6
    angles = torch.cat((angle.cos(), angle.sin()), 1)

    rows = qkv.view(tokens, -1, 128)
    call.q = rope_reference(rms_norm_reference(rows[:, :q_heads], q_weight), angles).to(DTYPE)
    k = rope_reference(rms_norm_reference(rows[:, q_heads : q_heads + kv_heads], k_weight), angles).to(DTYPE)
    v = rows[:, q_heads + kv_heads :]
    before = call.kv.clone()
    for s in (s for s, n in enumerate(lens[0]) if n):
        position, token = lens[1][s] - 1, int(call.query_starts[s])
        page = int(call.page_table[s, position // 16])
        call.kv[page, call.layer, :, :, position % 16] = torch.stack((k[token], v[token]))
        before[page, call.layer, :, :, position % 16] = torch.nan
    expected, own = reference(call, decode=True)
    after, call.kv = call.kv, before

    config = config_of("hopper", programs)
    launch = DecodeLaunch(call, config, qkv=Qkv(qkv, q_weight, k_weight, angles, eps=1e-6))
    launch.plan()
    launch.run()
    assert relative_error(launch.y[own], expected[own]) < ROUNDING
    assert torch.equal(call.kv.isnan(), after.isnan()), "the cache's written slots are not the newest ones"
    assert relative_error(call.kv.nan_to_num(), after.nan_to_num()) < 1e-3
    first = launch.y.clone()
    launch.run()
    assert torch.equal(launch.y[own], first[own]), "two runs differ"
    assert not launch.scratch["arrivals"].any()
