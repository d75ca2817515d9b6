"""The query tiles of a step's prefill attention, dearest first; once a step for all layers.

query_lens, context_lens i32 [S] → plan i32 [2 + TILES].

A sequence with two or more queries (one belongs to decode) has ⌈query_len / TILE⌉ tiles, listed from its last, which
sees the longest context, to its first. Every tile is computed for each of HEADS heads (or packs of heads), and where
that is too little work for PROGRAMS programs, the keys of each tile are split over several of them.

    plan[0]      number of tiles
    plan[1]      splits of each tile's keys: those that take the least time, a split costing as much as OVERHEAD blocks
    plan[2 …]    sequence · 65536 + number of the tile in its sequence

One program, 2–3 µs.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["S", "PROGRAMS", "TILES"])
def attention_prefill_plan(
    query_lens_ptr,
    context_lens_ptr,
    plan_ptr,
    S,
    PROGRAMS,
    TILES,
    S_BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
    OVERHEAD: tl.constexpr,
    TILES_BLOCK: tl.constexpr,
):
    s = tl.arange(0, S_BLOCK)
    query_len = tl.load(query_lens_ptr + s, mask=s < S, other=0)
    tiles = tl.where(query_len > 1, tl.cdiv(query_len, TILE), 0)
    ends = tl.cumsum(tiles)
    total = tl.sum(tiles)

    context_len = tl.load(context_lens_ptr + s, mask=(s < S) & (query_len > 1), other=0)
    blocks = tl.cdiv(tl.max(context_len), BLOCK)
    splits = 1 + tl.arange(0, MAX_SPLITS)
    units = total * HEADS * splits
    cost = tl.cdiv(units, PROGRAMS).to(tl.float32) / splits * blocks + OVERHEAD * (splits - 1)
    cost = tl.where((splits == 1) | (units <= 4 * PROGRAMS), cost, float("inf"))
    best = tl.min(tl.where(cost == tl.min(cost), splits, MAX_SPLITS))
    tl.store(plan_ptr, total)
    tl.store(plan_ptr + 1, best)

    for start in range(0, TILES, TILES_BLOCK):
        tile = start + tl.arange(0, TILES_BLOCK)
        before = (ends[None, :] <= tile[:, None]) & (s < S)[None, :]
        sequence = tl.sum(before.to(tl.int32), axis=1)
        own = s[None, :] == sequence[:, None]
        last = tl.sum(tl.where(own, ends[None, :], 0), axis=1) - 1
        tl.store(plan_ptr + 2 + tile, sequence * 65536 + (last - tile), mask=tile < tl.minimum(total, TILES))
