"""qkv_norm_rope_write against the ops one by one in float64; padding tokens leave the cache alone."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, ROUNDING, relative_error, torch

# isort: split

from oi.codegen.cuda.tuning.rows_launch import qkv_norm_rope_write
from tests.kernels.cuda.row_reference import rms_norm_reference, rope_reference

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("per_program", [1, 4])
@pytest.mark.parametrize("heads", [(4, 1), (16, 8), (40, 8)])
@pytest.mark.parametrize("tokens", [1, 21])
def test_qkv_norm_rope_write(tokens: int, heads: tuple[int, int], per_program: int) -> None:
    q_heads, kv_heads = heads
    dim, layers, pages, layer = 128, 3, 4, 2
    qkv = torch.randn(tokens, (q_heads + 2 * kv_heads) * dim, device=DEVICE, dtype=DTYPE)
    q_weight, k_weight = (torch.randn(dim, device=DEVICE, dtype=DTYPE) for _ in range(2))
    angle = torch.rand(tokens, dim // 2, device=DEVICE) * 6
    angles = torch.cat((angle.cos(), angle.sin()), 1)
    slots = torch.randperm(pages * 16, device=DEVICE)[:tokens].to(torch.int32)
    if tokens > 1:
        slots[tokens // 2] = -1
    kv = torch.full((pages, layers, 2, kv_heads, 16, dim), torch.nan, device=DEVICE, dtype=DTYPE)
    q = torch.full((tokens, q_heads, dim), torch.nan, device=DEVICE, dtype=DTYPE)
    qkv_norm_rope_write(qkv, q_weight, k_weight, angles, slots, kv, q, layer, tokens_per_program=per_program, warps=4)

    rows = qkv.view(tokens, -1, dim)
    assert relative_error(q, rope_reference(rms_norm_reference(rows[:, :q_heads], q_weight), angles)) < ROUNDING
    live = slots >= 0
    page, offset = slots[live].long() // 16, slots[live].long() % 16
    k = rope_reference(rms_norm_reference(rows[live, q_heads : q_heads + kv_heads], k_weight), angles[live])
    assert relative_error(kv[page, layer, 0, :, offset], k) < ROUNDING
    assert torch.equal(kv[page, layer, 1, :, offset], rows[live, q_heads + kv_heads :])
    assert int((~kv.isnan()).sum()) == int(live.sum()) * 2 * kv_heads * dim, "other slots were written"
