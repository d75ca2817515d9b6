"""The sum of split tiles' parts, against float64."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, relative_error, torch

# isort: split

from oi.codegen.cuda.kernels.attention import AttentionShape, Prefill
from oi.codegen.cuda.kernels.attention_prefill_add import attention_prefill_add
from oi.codegen.cuda.kernels.attention_prefill_plan import attention_prefill_plan

pytestmark = pytest.mark.gpu

LENS = [([16, 1, 9, 0, 2], [700, 50, 9, 0, 450]), ([80], [900]), ([3], [2000]), ([1, 0], [30, 0])]


@pytest.mark.parametrize("heads", [(8, 2), (10, 2)])
@pytest.mark.parametrize("programs", [5, 132])
@pytest.mark.parametrize("lens", LENS, ids=str)
def test_parts(lens: tuple[list[int], list[int]], programs: int, heads: tuple[int, int]) -> None:
    """Parts that are not there, and all rows of other tiles, are NaN; some parts saw nothing."""
    shape = AttentionShape(*heads, 32, 1, 1.0)
    config = Prefill(hopper=True, block=64, stages=2, num_warps=4, programs=programs, few=True)
    query_lens, context_lens = (torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in lens)
    starts = query_lens.cumsum(0, dtype=torch.int32) - query_lens
    tokens, sequences = sum(lens[0]), len(lens[0])
    tiles = config.tiles(shape, tokens, sequences)
    plan = torch.full((config.plan_size(shape, tokens, sequences),), -(10**9), dtype=torch.int32, device=DEVICE)
    attention_prefill_plan[(1,)](
        query_lens, context_lens, plan, sequences, programs, tiles, **config.plan_constants(shape), num_warps=8
    )
    parts, stats = (torch.full(array, torch.nan, device=DEVICE) for _, array in config.scratch(shape).values())
    y = torch.full((tokens, shape.q_heads, shape.head_dim), torch.nan, device=DEVICE)
    expected = y.double()

    count, splits, *packed = plan.tolist()
    pack, tile = config.pack(shape), config.tile(shape)
    for pair in range(count * shape.kv_heads):
        s, number = divmod(packed[pair // shape.kv_heads], 65536)
        first = number * tile
        queries = min(tile, lens[0][s] - first)
        blocks = -(-(lens[1][s] - lens[0][s] + first + queries) // config.block)
        part_count = -(-blocks // -(-blocks // splits))
        if part_count == 1:
            continue
        units = slice(pair * splits, pair * splits + part_count)
        parts[units] = torch.randn_like(parts[units])
        stats[units, 0] = torch.randn_like(stats[units, 0]) * 5
        stats[units, 1] = torch.rand_like(stats[units, 1]) + 0.5
        unseen = torch.rand_like(stats[units, 0]) < 0.3
        unseen[0] = False
        stats[units, 0] = stats[units, 0].masked_fill(unseen, -torch.inf)
        weights = torch.exp2(stats[units, 0].double())[:, :, None]
        total = (weights * stats[units, 1, :, None].double()).sum(0)
        sums = ((weights * parts[units].double()).sum(0) / total).view(tile, pack, -1)
        head = pair % shape.kv_heads * shape.group
        tokens_of = slice(int(starts[s]) + first, int(starts[s]) + first + queries)
        expected[tokens_of, head : head + shape.group] = sums[:queries, : shape.group]
    attention_prefill_add[(7,)](
        starts, query_lens, context_lens, plan, parts, stats, y, **config.add_constants(shape), PDL=False, num_warps=4
    )
    own = ~expected.isnan()
    assert torch.equal(own, ~y.isnan()), "rows of other tiles were written, or some were not"
    assert own.any() or programs == 5 or max(lens[0]) < 2, "nothing was split"
    if own.any():
        assert relative_error(y[own], expected[own]) < 1e-5
