"""y[t, h] = Σ_j softmax_j(scale · q[t, h]·k[j]) · v[j] for every sequence that has one query in this step.

The operation, plan, parts and arrivals of attention_decode, for sm_90 and heads of 128, in Gluon:

    producer    one warp: page table → one bulk tensor copy a page and half head, into a ring of STAGES blocks
    consumer    one warpgroup: scoresᵀ [BLOCK, heads] = k·qᵀ, then yᵀ [D, heads] += vᵀ·p

Keys and values are the left operands, of which tensor cores take 64 rows at once, and the G = Q/K heads that share a
KV head the columns, of which they take as few as 8.

The kernel before writes one key and value of a sequence, the newest; all others are there since earlier steps. So the
producer does not wait for it, and its ring is full when the consumer's wait ends. The newest token begins the sums
instead, in the program that has a head's first part; in the blocks it is masked.

Also complete before the chain of dependent launches begins, besides what attention_decode names: page_table, and all of
kv but the newest tokens.

With FUSED, the op qkv_norm_rope_write is part of it, for graphs in which every sequence has one query: q, k and v of
the newest tokens come from qkv bf16 [T, (Q + 2K)·D], q_weight, k_weight bf16 [D] and angles f32 [T, D], and the program
that has a head's first part writes its k and v to the cache.

Tensor map: kv as [N·L·2·K·B, D] in boxes [B, 64]. Floor: 4·K·D bytes a token of context.
"""

import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LOG2E = gl.constexpr(1.4426950408889634)
HALF = gl.constexpr(64)  # columns of one 128-byte swizzled copy, and half of a head
D = gl.constexpr(2 * HALF)


@gluon.jit
def _span(plan_ptr, context_len, BLOCK: gl.constexpr):
    """(blocks of a head, units that are set aside for it)"""
    align = gl.load(plan_ptr + 1)
    blocks = gl.cdiv(context_len, BLOCK)
    return blocks, gl.cdiv(blocks, align) * align


@gluon.jit
def _share(plan_ptr, S):
    """(first unit, end, sequence of the first) of this program. Idle ones look at sequence 0: it can be read."""
    share = gl.load(plan_ptr)
    unit = gl.program_id(0) * share
    end = gl.minimum(unit + share, gl.load(plan_ptr + 2 + S))
    first = gl.load(plan_ptr + S + 3 + gl.program_id(0))
    return unit, end, gl.where(unit < end, first, 0)


@gluon.jit
def _produce(
    plan_ptr, pages, lengths, kv_desc, boxes, barriers, layer, S,
    L: gl.constexpr, K: gl.constexpr, B: gl.constexpr, BLOCK: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    PAGES: gl.constexpr = BLOCK // B
    page_table_ptr, table_width_ptr = pages
    _query_starts_ptr, context_lens_ptr = lengths
    k_boxes, v_boxes = boxes
    full, empty = barriers
    table_width = gl.load(table_width_ptr)
    unit, end, s = _share(plan_ptr, S)
    copied = 0  # blocks, since the start
    while unit < end:
        first_unit = gl.load(plan_ptr + 2 + s)
        context_len = gl.load(context_lens_ptr + s)
        blocks, span = _span(plan_ptr, context_len, BLOCK)
        head = (unit - first_unit) // span
        begin = (unit - first_unit) % span
        pages_ptr = page_table_ptr + s.to(gl.int64) * table_width
        last_page = (context_len - 1) // B
        for block in range(begin, gl.minimum(blocks, begin + end - unit)):
            lines = ()
            for j in gl.static_range(PAGES):
                page = gl.load(pages_ptr + gl.minimum(block * PAGES + j, last_page))
                lines = lines + (((page * L + layer) * (2 * K) + head) * B,)  # type: ignore[assignment]  # noqa: RUF005
            stage = copied % STAGES
            mbarrier.wait(empty.index(stage), (copied // STAGES & 1) ^ 1)
            mbarrier.expect(full.index(stage), 2 * BLOCK * D * 2)
            for j in gl.static_range(PAGES):
                for half in gl.static_range(2):
                    box = (stage * 2 + half) * PAGES + j
                    tma.async_copy_global_to_shared(
                        kv_desc, [lines[j], half * HALF], full.index(stage), k_boxes.index(box)
                    )
            for j in gl.static_range(PAGES):
                for half in gl.static_range(2):
                    box = (stage * 2 + half) * PAGES + j
                    tma.async_copy_global_to_shared(
                        kv_desc, [lines[j] + K * B, half * HALF], full.index(stage), v_boxes.index(box)
                    )
            copied += 1
        unit = first_unit + (head + 1) * span
        while (unit < end) & (unit == gl.load(plan_ptr + 3 + s)):  # s is done, or has no units
            s += 1


@gluon.jit
def _rms_rope(lo, hi, weight_lo, weight_hi, cos, sin, scale):
    """rope(x · scale · weight) of halves, in bf16."""
    lo_normed = lo * scale * weight_lo
    hi_normed = hi * scale * weight_hi
    rotated_lo = (lo_normed * cos - hi_normed * sin).to(gl.bfloat16)
    rotated_hi = (hi_normed * cos + lo_normed * sin).to(gl.bfloat16)
    return rotated_lo, rotated_hi


@gluon.jit
def _consume(
    plan_ptr, pages, lengths, inputs, kv_ptr, results, tiles, barriers, layer, S,
    SCALE: gl.constexpr, L: gl.constexpr, Q: gl.constexpr, K: gl.constexpr, B: gl.constexpr,
    BLOCK: gl.constexpr, STAGES: gl.constexpr, ROWS: gl.constexpr, EPS: gl.constexpr, FUSED: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    G: gl.constexpr = Q // K
    SCALE2: gl.constexpr = SCALE * LOG2E
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    HEAD: gl.constexpr = gl.SliceLayout(0, SUMS)
    LINE: gl.constexpr = gl.SliceLayout(1, SUMS)
    NEW: gl.constexpr = gl.BlockedLayout([1, 4], [2, 16], [4, 1], [1, 0])
    VALUES: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    page_table_ptr, table_width_ptr = pages
    query_starts_ptr, context_lens_ptr = lengths
    y_ptr, parts_ptr, stats_ptr, arrivals_ptr = results
    q_tile, q_halves, k_tiles, v_tiles, p_tile = tiles
    full, empty = barriers

    share = gl.load(plan_ptr)
    table_width = gl.load(table_width_ptr)
    unit, end, s = _share(plan_ptr, S)
    first_unit = gl.load(plan_ptr + 2 + s)
    context_len = gl.load(context_lens_ptr + s)
    token = gl.load(query_starts_ptr + s)
    idle = unit >= end
    page = 0
    if not idle:
        page = gl.load(page_table_ptr + s.to(gl.int64) * table_width + (context_len - 1) // B)

    new_row = gl.arange(0, ROWS, gl.SliceLayout(1, NEW))
    new_d = gl.arange(0, HALF, gl.SliceLayout(0, NEW))
    n = gl.arange(0, ROWS, HEAD)
    d = gl.arange(0, D, LINE)
    position_in_block = gl.arange(0, BLOCK, LINE)
    no_scores = gl.full([BLOCK, ROWS], 0.0, gl.float32, layout=SUMS)
    q_mask = (new_row < G)[:, None]
    if FUSED:
        qkv_ptr, q_weight_ptr, k_weight_ptr, angles_ptr = inputs
        q_weight_lo = gl.load(q_weight_ptr + new_d).to(gl.float32)
        q_weight_hi = gl.load(q_weight_ptr + HALF + new_d).to(gl.float32)
        k_weight_lo = gl.load(k_weight_ptr + new_d).to(gl.float32)
        k_weight_hi = gl.load(k_weight_ptr + HALF + new_d).to(gl.float32)
    if PDL:
        gdc_wait()

    taken = 0  # blocks, since the start
    while unit < end:
        blocks, span = _span(plan_ptr, context_len, BLOCK)
        head = (unit - first_unit) // span
        begin = (unit - first_unit) % span
        stop = gl.minimum(blocks, begin + end - unit)
        head_unit = first_unit + head * span
        leads = begin == 0
        old = context_len - 1  # tokens before the newest, which has the last position
        line = (((page.to(gl.int64) * L + layer) * 2) * K + head) * B + old % B
        new_k_ptr = kv_ptr + line * D
        new_v_ptr = new_k_ptr + K * B * D

        if FUSED:
            row_ptr = qkv_ptr + token.to(gl.int64) * ((Q + 2 * K) * D)
            q_ptrs = row_ptr + (head * G + new_row)[:, None] * D + new_d[None, :]
            q_lo = gl.load(q_ptrs, mask=q_mask, other=0.0).to(gl.float32)
            q_hi = gl.load(q_ptrs + HALF, mask=q_mask, other=0.0).to(gl.float32)
            k_lo = gl.load(row_ptr + (Q + head) * D + new_d).to(gl.float32)
            k_hi = gl.load(row_ptr + (Q + head) * D + HALF + new_d).to(gl.float32)
            v_new = gl.load(row_ptr + (Q + K + head) * D + d)
            cos = gl.load(angles_ptr + token.to(gl.int64) * D + new_d)
            sin = gl.load(angles_ptr + token.to(gl.int64) * D + HALF + new_d)
            q_scale = gl.rsqrt((gl.sum(q_lo * q_lo, 1) + gl.sum(q_hi * q_hi, 1)) / D + EPS)[:, None]
            k_scale = gl.rsqrt((gl.sum(k_lo * k_lo, 0) + gl.sum(k_hi * k_hi, 0)) / D + EPS)
            q_lo, q_hi = _rms_rope(
                q_lo, q_hi, q_weight_lo[None, :], q_weight_hi[None, :], cos[None, :], sin[None, :], q_scale
            )
            k_lo, k_hi = _rms_rope(k_lo, k_hi, k_weight_lo, k_weight_hi, cos, sin, k_scale)
            if leads:
                gl.store(new_k_ptr + new_d, k_lo)
                gl.store(new_k_ptr + HALF + new_d, k_hi)
                gl.store(new_v_ptr + d, v_new)
        else:
            q_ptrs = inputs[0] + token.to(gl.int64) * (Q * D) + (head * G + new_row)[:, None] * D + new_d[None, :]
            q_lo = gl.load(q_ptrs, mask=q_mask, other=0.0)
            q_hi = gl.load(q_ptrs + HALF, mask=q_mask, other=0.0)
            k_lo = gl.load(new_k_ptr + new_d)
            k_hi = gl.load(new_k_ptr + HALF + new_d)
            v_new = gl.load(new_v_ptr + d)
        q_halves.index(0).store(q_lo)
        q_halves.index(1).store(q_hi)
        fence_async_shared()
        gl.thread_barrier()

        new_products = (
            q_lo.to(gl.float32) * k_lo.to(gl.float32)[None, :] + q_hi.to(gl.float32) * k_hi.to(gl.float32)[None, :]
        )
        new_score = gl.convert_layout(gl.sum(new_products, 1), HEAD) * SCALE2
        maximum = gl.where(leads & (n >= 0), new_score, float("-inf"))
        denominators = gl.where(leads & (position_in_block == 0)[:, None] & (n >= 0)[None, :], 1.0, 0.0)
        sums = gl.where(leads & (n >= 0)[None, :], v_new.to(gl.float32)[:, None], 0.0)

        for block in range(begin, stop):
            stage = taken % STAGES
            mbarrier.wait(full.index(stage), taken // STAGES & 1)
            scores = warpgroup_mma(
                k_tiles.index(stage), q_tile.permute([1, 0]), no_scores, use_acc=False, is_async=True
            )
            if block * BLOCK + BLOCK > old:
                # Slots from the newest on hold anything, and 0 · NaN is NaN.
                v_tile = v_tiles.index(stage)
                v = v_tile.load(VALUES)
                v_position = block * BLOCK + gl.arange(0, BLOCK, gl.SliceLayout(1, VALUES))
                v_tile.store(gl.where((v_position < old)[:, None], v, 0.0))
            scores = warpgroup_mma_wait(0, deps=[scores])
            inside = (block * BLOCK + position_in_block < old)[:, None]
            scores = gl.where(inside, scores * SCALE2, float("-inf"))
            raised = gl.maximum(maximum, gl.max(scores, 0))
            # A part may hold nothing but a masked block; 0 keeps its exponents from being inf - inf.
            base = gl.where(raised == float("-inf"), 0.0, raised)
            p = gl.exp2(scores - base[None, :])
            shrink = gl.exp2(maximum - base)
            denominators = denominators * shrink[None, :] + p
            maximum = raised
            p_tile.permute([1, 0]).store(p.to(gl.bfloat16))
            fence_async_shared()
            gl.thread_barrier()
            sums = warpgroup_mma(v_tiles.index(stage).permute([1, 0]), p_tile.permute([1, 0]), sums * shrink[None, :])
            mbarrier.arrive(empty.index(stage))
            taken += 1

        denominator = gl.sum(denominators, 0)
        # A part that holds nothing weighs nothing.
        y = sums / gl.where(denominator == 0.0, 1.0, denominator)[None, :]
        y_offsets = n[None, :] * D + d[:, None]
        y_mask = (n < G)[None, :] & (d >= 0)[:, None]
        y_head_ptr = y_ptr + token.to(gl.int64) * (Q * D) + head * (G * D)
        first_program = head_unit // share
        part_count = (head_unit + blocks - 1) // share - first_program + 1
        if part_count == 1:
            gl.store(y_head_ptr + y_offsets, y.to(gl.bfloat16), mask=y_mask)
        else:
            slot = 2 * gl.program_id(0) + gl.where(leads, 1, 0)
            gl.store(parts_ptr + slot * (G * D) + y_offsets, y, mask=y_mask)
            gl.store(stats_ptr + slot * G + n, maximum + gl.log2(denominator), mask=n < G)
            gl.thread_barrier()  # all threads' parts are written before one thread announces them
            arrival_ptr = arrivals_ptr + s * K + head
            arrived = gl.atomic_add(arrival_ptr, 1, sem="acq_rel", scope="gpu")
            if arrived == part_count - 1:
                gl.store(arrival_ptr, 0)
                _add_parts(parts_ptr, stats_ptr, y_head_ptr, first_program, part_count, G)

        unit = head_unit + span
        while (unit < end) & (unit == gl.load(plan_ptr + 3 + s)):  # s is done, or has no units
            s += 1
        if unit < end:
            first_unit = gl.load(plan_ptr + 2 + s)
            context_len = gl.load(context_lens_ptr + s)
            token = gl.load(query_starts_ptr + s)
            page = gl.load(page_table_ptr + s.to(gl.int64) * table_width + (context_len - 1) // B)


@gluon.jit
def _add_parts(parts_ptr, stats_ptr, y_head_ptr, first_program, part_count, G: gl.constexpr):
    """The first program's part lies in its second slot, every later one's in its first."""
    GP: gl.constexpr = triton.next_power_of_2(G)
    AT_ONCE: gl.constexpr = 64 // GP if GP >= 4 else 16
    PARTS: gl.constexpr = gl.BlockedLayout([AT_ONCE, 1, 4], [1, 1, 32], [1, 4, 1], [2, 1, 0])
    WEIGHTS: gl.constexpr = gl.SliceLayout(2, PARTS)
    Y: gl.constexpr = gl.SliceLayout(0, PARTS)
    g = gl.arange(0, GP, gl.SliceLayout(0, WEIGHTS))
    d = gl.arange(0, D, gl.SliceLayout(0, Y))
    y_g = gl.arange(0, GP, gl.SliceLayout(1, Y))
    maximum = gl.full([GP], float("-inf"), gl.float32, layout=gl.SliceLayout(0, WEIGHTS))
    total = gl.full([GP], 0.0, gl.float32, layout=gl.SliceLayout(0, WEIGHTS))
    sums = gl.full([GP, D], 0.0, gl.float32, layout=Y)
    for start in range(0, part_count, AT_ONCE):
        part = start + gl.arange(0, AT_ONCE, gl.SliceLayout(1, WEIGHTS))
        slot = 2 * (first_program + part) + gl.where(part == 0, 1, 0)
        live = (part < part_count)[:, None] & (g < G)[None, :]
        source = slot[:, None] * G + g[None, :]
        stats = gl.load(stats_ptr + source, mask=live, other=float("-inf"), cache_modifier=".cg")
        part_ptrs = parts_ptr + (source * D)[:, :, None] + gl.expand_dims(d[None, :], 0)
        parts = gl.load(part_ptrs, mask=live[:, :, None], other=0.0, cache_modifier=".cg")
        raised = gl.where(g < G, gl.maximum(maximum, gl.max(stats, 0)), 0.0)
        weights = gl.exp2(stats - raised[None, :])
        shrink = gl.exp2(maximum - raised)
        total = total * shrink + gl.sum(weights, 0)
        sums = sums * gl.convert_layout(shrink, gl.SliceLayout(1, Y))[:, None] + gl.sum(parts * weights[:, :, None], 0)
        maximum = raised
    y = sums / gl.convert_layout(total, gl.SliceLayout(1, Y))[:, None]
    gl.store(y_head_ptr + y_g[:, None] * D + d[None, :], y.to(gl.bfloat16), mask=(y_g < G)[:, None])


@gluon.jit
def _attend(
    kv_desc, inputs, kv_ptr, lengths, pages, plan_ptr, results, layer, S,
    SCALE: gl.constexpr, L: gl.constexpr, Q: gl.constexpr, K: gl.constexpr, B: gl.constexpr,
    BLOCK: gl.constexpr, STAGES: gl.constexpr, EPS: gl.constexpr, FUSED: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    ROWS: gl.constexpr = max(8, triton.next_power_of_2(Q // K))
    TILE: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    q_tile = gl.allocate_shared_memory(gl.bfloat16, [ROWS, D], TILE)
    p_tile = gl.allocate_shared_memory(gl.bfloat16, [ROWS, BLOCK], TILE)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK, D], TILE)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK, D], TILE)
    # A swizzled tile lies in memory as its 64-column halves, one after another: a page of a half is contiguous.
    q_halves = q_tile._reinterpret(gl.bfloat16, [2, ROWS, HALF], TILE)
    k_boxes = k_tiles._reinterpret(gl.bfloat16, [STAGES * 2 * BLOCK // B, B, HALF], TILE)
    v_boxes = v_tiles._reinterpret(gl.bfloat16, [STAGES * 2 * BLOCK // B, B, HALF], TILE)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    fence_async_shared()
    tiles = (q_tile, q_halves, k_tiles, v_tiles, p_tile)
    barriers = (full, empty)
    gl.warp_specialize(
        [
            (_consume, (plan_ptr, pages, lengths, inputs, kv_ptr, results, tiles, barriers, layer, S,
                        SCALE, L, Q, K, B, BLOCK, STAGES, ROWS, EPS, FUSED, PDL)),
            (_produce, (plan_ptr, pages, lengths, kv_desc, (k_boxes, v_boxes), barriers, layer, S,
                        L, K, B, BLOCK, STAGES)),
        ],
        [1],
        [40],
    )  # fmt: skip


@gluon.jit(do_not_specialize=["layer", "S"])
def attention_decode_hopper(
    kv_desc,
    q_ptr,
    kv_ptr,
    query_starts_ptr,
    context_lens_ptr,
    page_table_ptr,
    plan_ptr,
    y_ptr,
    parts_ptr,
    stats_ptr,
    arrivals_ptr,
    layer,
    S,
    table_width_ptr,
    SCALE: gl.constexpr,
    L: gl.constexpr,
    Q: gl.constexpr,
    K: gl.constexpr,
    B: gl.constexpr,
    BLOCK: gl.constexpr,
    STAGES: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    lengths = (query_starts_ptr, context_lens_ptr)
    results = (y_ptr, parts_ptr, stats_ptr, arrivals_ptr)
    _attend(
        kv_desc, (q_ptr,), kv_ptr, lengths, (page_table_ptr, table_width_ptr), plan_ptr, results, layer, S,
        SCALE, L, Q, K, B, BLOCK, STAGES, 0.0, False, PDL,
    )  # fmt: skip


@gluon.jit(do_not_specialize=["layer", "S"])
def qkv_attention_decode_hopper(
    kv_desc,
    qkv_ptr,
    q_weight_ptr,
    k_weight_ptr,
    angles_ptr,
    kv_ptr,
    query_starts_ptr,
    context_lens_ptr,
    page_table_ptr,
    plan_ptr,
    y_ptr,
    parts_ptr,
    stats_ptr,
    arrivals_ptr,
    layer,
    S,
    table_width_ptr,
    SCALE: gl.constexpr,
    L: gl.constexpr,
    Q: gl.constexpr,
    K: gl.constexpr,
    B: gl.constexpr,
    BLOCK: gl.constexpr,
    STAGES: gl.constexpr,
    EPS: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    lengths = (query_starts_ptr, context_lens_ptr)
    results = (y_ptr, parts_ptr, stats_ptr, arrivals_ptr)
    _attend(
        kv_desc, (qkv_ptr, q_weight_ptr, k_weight_ptr, angles_ptr), kv_ptr, lengths,
        (page_table_ptr, table_width_ptr), plan_ptr, results, layer, S,
        SCALE, L, Q, K, B, BLOCK, STAGES, EPS, True, PDL,
    )  # fmt: skip
