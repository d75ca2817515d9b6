"""y[t, h] = Σ_j softmax_j(scale · q[t, h]·k[j]) · v[j] for every sequence that has one query in this step.

The operation, plan, parts, stats and arrivals of attention_decode, for sm_90 and heads of 64, 128, …, in Gluon:

    producer    one warp: page table → one bulk tensor copy a page and 64 columns, into a ring of STAGES blocks
    consumer    one warpgroup: scoresᵀ [BLOCK, heads] = k·qᵀ, then yᵀ [D, heads] += vᵀ·p

Keys and values are the left operands, of which tensor cores take 64 rows at once, and the G = Q/K heads that share a
KV head the columns, of which they take as few as 8.

The kernel before writes one key and value of a sequence, the newest; all others are there since earlier steps. So the
producer does not wait for it, and its ring is full when the consumer's wait ends. The newest token begins the sums
instead, in the program that leads: that has a head's first part. In the blocks it is masked.

The next kernel may start when the newest tokens are read, or with EARLY at once: then its loads are in flight sooner,
in the way of this kernel's few.

Complete before the chain of dependent launches begins, besides what attention_decode names: page_table, and all of kv
but the newest tokens.

qkv_attention_decode_hopper has the op qkv_norm_rope_write in it, for graphs in which every sequence has one query and
for heads of 128: q, k and v of the newest tokens come from qkv bf16 [T, (Q + 2K)·D], q_weight, k_weight bf16 [D] and
angles f32 [T, D], and the program that leads writes their k and v to the cache.

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

from oi.codegen.cuda.kernels.hopper_ring import ring_barriers

LOG2E = gl.constexpr(1.4426950408889634)
COLUMNS = gl.constexpr(64)  # of one 128-byte swizzled copy


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
    L: gl.constexpr, K: gl.constexpr, B: gl.constexpr, D: gl.constexpr, BLOCK: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    PAGES: gl.constexpr = BLOCK // B
    PIECES: gl.constexpr = D // COLUMNS
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
                lines = lines + (((page * L + layer) * (2 * K) + head) * B,)
            stage = copied % STAGES
            mbarrier.wait(empty.index(stage), (copied // STAGES & 1) ^ 1)
            mbarrier.expect(full.index(stage), 2 * BLOCK * D * 2)
            for j in gl.static_range(PAGES):
                for piece in gl.static_range(PIECES):
                    box = k_boxes.index((stage * PIECES + piece) * PAGES + j)
                    tma.async_copy_global_to_shared(kv_desc, [lines[j], piece * COLUMNS], full.index(stage), box)
            for j in gl.static_range(PAGES):
                for piece in gl.static_range(PIECES):
                    box = v_boxes.index((stage * PIECES + piece) * PAGES + j)
                    tma.async_copy_global_to_shared(
                        kv_desc, [lines[j] + K * B, piece * COLUMNS], full.index(stage), box
                    )
            copied += 1
        unit = first_unit + (head + 1) * span
        while (unit < end) & (unit == gl.load(plan_ptr + 3 + s)):  # s is done, or has no units
            s += 1


@gluon.jit
def _read_newest(
    q_ptr, new_k_ptr, new_v_ptr, token, head, q_tile, v_layout: gl.constexpr, score_layout: gl.constexpr,
    Q: gl.constexpr, G: gl.constexpr, D: gl.constexpr,
):  # fmt: skip
    """Put the head's queries into q_tile; their products with the newest key, and its value."""
    ROWS: gl.constexpr = q_tile.shape[0]
    NEW: gl.constexpr = gl.BlockedLayout([1, D // 16], [2, 16], [4, 1], [1, 0])
    n = gl.arange(0, ROWS, gl.SliceLayout(1, NEW))
    d = gl.arange(0, D, gl.SliceLayout(0, NEW))
    q_ptrs = q_ptr + token.to(gl.int64) * (Q * D) + (head * G + n)[:, None] * D + d[None, :]
    q = gl.load(q_ptrs, mask=(n < G)[:, None], other=0.0)
    k = gl.load(new_k_ptr + d)
    v = gl.load(new_v_ptr + gl.arange(0, D, v_layout))
    q_tile.store(q)
    fence_async_shared()
    gl.thread_barrier()
    return gl.convert_layout(gl.sum(q.to(gl.float32) * k.to(gl.float32)[None, :], 1), score_layout), v


@gluon.jit
def _rms_rope(lo, hi, weight_lo, weight_hi, cos, sin, scale):
    """rope(x · scale · weight) of halves, in bf16."""
    lo_normed = lo * scale * weight_lo
    hi_normed = hi * scale * weight_hi
    rotated_lo = (lo_normed * cos - hi_normed * sin).to(gl.bfloat16)
    rotated_hi = (hi_normed * cos + lo_normed * sin).to(gl.bfloat16)
    return rotated_lo, rotated_hi


@gluon.jit
def _make_newest(
    qkv_ptr, angles_ptr, weights, new_k_ptr, new_v_ptr, token, head, leads, q_tile,
    v_layout: gl.constexpr, score_layout: gl.constexpr, NEW: gl.constexpr,
    Q: gl.constexpr, K: gl.constexpr, D: gl.constexpr, EPS: gl.constexpr,
):  # fmt: skip
    """_read_newest from the projections; the program that leads writes key and value to the cache."""
    G: gl.constexpr = Q // K
    HALF: gl.constexpr = D // 2
    ROWS: gl.constexpr = q_tile.shape[0]
    q_weight_lo, q_weight_hi, k_weight_lo, k_weight_hi = weights
    n = gl.arange(0, ROWS, gl.SliceLayout(1, NEW))
    d = gl.arange(0, HALF, gl.SliceLayout(0, NEW))
    v_d = gl.arange(0, D, v_layout)
    row_ptr = qkv_ptr + token.to(gl.int64) * ((Q + 2 * K) * D)
    angle_ptr = angles_ptr + token.to(gl.int64) * D
    q_ptrs = row_ptr + (head * G + n)[:, None] * D + d[None, :]
    q_lo = gl.load(q_ptrs, mask=(n < G)[:, None], other=0.0).to(gl.float32)
    q_hi = gl.load(q_ptrs + HALF, mask=(n < G)[:, None], other=0.0).to(gl.float32)
    k_lo = gl.load(row_ptr + (Q + head) * D + d).to(gl.float32)
    k_hi = gl.load(row_ptr + (Q + head) * D + HALF + d).to(gl.float32)
    cos = gl.load(angle_ptr + d)
    sin = gl.load(angle_ptr + HALF + d)
    v = gl.load(row_ptr + (Q + K + head) * D + v_d)
    q_scale = gl.rsqrt((gl.sum(q_lo * q_lo, 1) + gl.sum(q_hi * q_hi, 1)) / D + EPS)[:, None]
    q_lo, q_hi = _rms_rope(q_lo, q_hi, q_weight_lo[None, :], q_weight_hi[None, :], cos[None, :], sin[None, :], q_scale)
    # A swizzled tile lies in memory as pieces of 64 columns, one after another: here the halves that rope turns.
    halves = q_tile._reinterpret(gl.bfloat16, [2, ROWS, HALF], q_tile.layout)
    halves.index(0).store(q_lo)
    halves.index(1).store(q_hi)
    fence_async_shared()
    gl.thread_barrier()
    k_scale = gl.rsqrt((gl.sum(k_lo * k_lo, 0) + gl.sum(k_hi * k_hi, 0)) / D + EPS)
    k_lo, k_hi = _rms_rope(k_lo, k_hi, k_weight_lo, k_weight_hi, cos, sin, k_scale)
    if leads:
        gl.store(new_k_ptr + d, k_lo)
        gl.store(new_k_ptr + HALF + d, k_hi)
        gl.store(new_v_ptr + v_d, v)
    products = q_lo.to(gl.float32) * k_lo.to(gl.float32)[None, :] + q_hi.to(gl.float32) * k_hi.to(gl.float32)[None, :]
    return gl.convert_layout(gl.sum(products, 1), score_layout), v


@gluon.jit
def _consume(
    plan_ptr, pages, lengths, inputs, kv_ptr, results, tiles, barriers, layer, S,
    SCALE: gl.constexpr, L: gl.constexpr, Q: gl.constexpr, K: gl.constexpr, B: gl.constexpr, D: gl.constexpr,
    BLOCK: gl.constexpr, STAGES: gl.constexpr, EPS: gl.constexpr, FUSED: gl.constexpr, PDL: gl.constexpr,
    EARLY: gl.constexpr,
):  # fmt: skip
    G: gl.constexpr = Q // K
    ROWS: gl.constexpr = tiles[0].shape[0]
    SCALE2: gl.constexpr = SCALE * LOG2E
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    HEAD: gl.constexpr = gl.SliceLayout(0, SUMS)
    LINE: gl.constexpr = gl.SliceLayout(1, SUMS)
    VALUES: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    HALVES: gl.constexpr = gl.BlockedLayout([1, 4], [2, 16], [4, 1], [1, 0])
    page_table_ptr, table_width_ptr = pages
    query_starts_ptr, context_lens_ptr = lengths
    y_ptr, parts_ptr, stats_ptr, arrivals_ptr = results
    q_tile, k_tiles, v_tiles, p_tile = tiles
    full, empty = barriers

    share = gl.load(plan_ptr)
    table_width = gl.load(table_width_ptr)
    unit, end, s = _share(plan_ptr, S)
    first_unit = gl.load(plan_ptr + 2 + s)
    context_len = gl.load(context_lens_ptr + s)
    token = gl.load(query_starts_ptr + s)
    page_ptr = page_table_ptr + s.to(gl.int64) * table_width + (context_len - 1) // B
    page = gl.load(page_ptr, mask=unit < end, other=0)
    if FUSED:
        half_d = gl.arange(0, D // 2, gl.SliceLayout(0, HALVES))
        weights = (
            gl.load(inputs[1] + half_d).to(gl.float32),
            gl.load(inputs[1] + D // 2 + half_d).to(gl.float32),
            gl.load(inputs[2] + half_d).to(gl.float32),
            gl.load(inputs[2] + D // 2 + half_d).to(gl.float32),
        )
    n = gl.arange(0, ROWS, HEAD)
    d = gl.arange(0, D, LINE)
    in_block = gl.arange(0, BLOCK, LINE)
    no_scores = gl.full([BLOCK, ROWS], 0.0, gl.float32, layout=SUMS)
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
            new_score, new_v = _make_newest(
                inputs[0], inputs[3], weights, new_k_ptr, new_v_ptr, token, head, leads, q_tile,
                LINE, HEAD, HALVES, Q, K, D, EPS,
            )  # fmt: skip
        else:
            new_score, new_v = _read_newest(inputs[0], new_k_ptr, new_v_ptr, token, head, q_tile, LINE, HEAD, Q, G, D)
        if PDL and not EARLY:
            gdc_launch_dependents()
        maximum = gl.where(leads & (n >= 0), new_score * SCALE2, float("-inf"))
        denominators = gl.where(leads & (in_block == 0)[:, None] & (n >= 0)[None, :], 1.0, 0.0)
        sums = gl.where(leads & (n >= 0)[None, :], new_v.to(gl.float32)[:, None], 0.0)

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
            inside = (block * BLOCK + in_block < old)[:, None]
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
            v_t = v_tiles.index(stage).permute([1, 0])
            sums = warpgroup_mma(v_t, p_tile.permute([1, 0]), sums * shrink[None, :])
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
            if gl.atomic_add(arrival_ptr, 1, sem="acq_rel", scope="gpu") == part_count - 1:
                gl.store(arrival_ptr, 0)
                _add_parts(parts_ptr, stats_ptr, y_head_ptr, first_program, part_count, G, D)

        unit = head_unit + span
        while (unit < end) & (unit == gl.load(plan_ptr + 3 + s)):  # s is done, or has no units
            s += 1
        if unit < end:
            first_unit = gl.load(plan_ptr + 2 + s)
            context_len = gl.load(context_lens_ptr + s)
            token = gl.load(query_starts_ptr + s)
            page = gl.load(page_table_ptr + s.to(gl.int64) * table_width + (context_len - 1) // B)


@gluon.jit
def _add_parts(parts_ptr, stats_ptr, y_head_ptr, first_program, part_count, G: gl.constexpr, D: gl.constexpr):
    """The first program's part lies in its second slot, every later one's in its first."""
    GP: gl.constexpr = triton.next_power_of_2(G)
    AT_ONCE: gl.constexpr = 64 // GP if GP >= 4 else 16
    PARTS: gl.constexpr = gl.BlockedLayout([AT_ONCE, 1, D // 32], [1, 1, 32], [1, 4, 1], [2, 1, 0])
    STATS: gl.constexpr = gl.SliceLayout(2, PARTS)
    Y: gl.constexpr = gl.SliceLayout(0, PARTS)
    i = gl.arange(0, AT_ONCE, gl.SliceLayout(1, STATS))
    g = gl.arange(0, GP, gl.SliceLayout(0, STATS))
    d = gl.arange(0, D, gl.SliceLayout(0, Y))
    y_g = gl.arange(0, GP, gl.SliceLayout(1, Y))
    maximum = gl.full([GP], float("-inf"), gl.float32, layout=gl.SliceLayout(0, STATS))
    total = gl.full([GP], 0.0, gl.float32, layout=gl.SliceLayout(0, STATS))
    sums = gl.full([GP, D], 0.0, gl.float32, layout=Y)
    for start in range(0, part_count, AT_ONCE):
        part = start + i
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
    SCALE: gl.constexpr, L: gl.constexpr, Q: gl.constexpr, K: gl.constexpr, B: gl.constexpr, D: gl.constexpr,
    BLOCK: gl.constexpr, STAGES: gl.constexpr, EPS: gl.constexpr, FUSED: gl.constexpr, PDL: gl.constexpr,
    EARLY: gl.constexpr,
):  # fmt: skip
    gl.static_assert(D % COLUMNS == 0)
    if PDL and EARLY:
        gdc_launch_dependents()
    ROWS: gl.constexpr = max(8, triton.next_power_of_2(Q // K))
    TILE: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    q_tile = gl.allocate_shared_memory(gl.bfloat16, [ROWS, D], TILE)
    p_tile = gl.allocate_shared_memory(gl.bfloat16, [ROWS, BLOCK], TILE)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK, D], TILE)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK, D], TILE)
    # A page of a piece of 64 columns is contiguous.
    BOXES: gl.constexpr = STAGES * (D // COLUMNS) * (BLOCK // B)
    k_boxes = k_tiles._reinterpret(gl.bfloat16, [BOXES, B, COLUMNS], TILE)
    v_boxes = v_tiles._reinterpret(gl.bfloat16, [BOXES, B, COLUMNS], TILE)
    full, empty = ring_barriers(STAGES)
    tiles = (q_tile, k_tiles, v_tiles, p_tile)
    barriers = (full, empty)
    gl.warp_specialize(
        [
            (_consume, (plan_ptr, pages, lengths, inputs, kv_ptr, results, tiles, barriers, layer, S,
                        SCALE, L, Q, K, B, D, BLOCK, STAGES, EPS, FUSED, PDL, EARLY)),
            (_produce, (plan_ptr, pages, lengths, kv_desc, (k_boxes, v_boxes), barriers, layer, S,
                        L, K, B, D, BLOCK, STAGES)),
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
    D: gl.constexpr,
    BLOCK: gl.constexpr,
    STAGES: gl.constexpr,
    EARLY: gl.constexpr,
    PDL: gl.constexpr,
):
    lengths = (query_starts_ptr, context_lens_ptr)
    results = (y_ptr, parts_ptr, stats_ptr, arrivals_ptr)
    _attend(
        kv_desc, (q_ptr,), kv_ptr, lengths, (page_table_ptr, table_width_ptr), plan_ptr, results, layer, S,
        SCALE, L, Q, K, B, D, BLOCK, STAGES, 0.0, False, PDL, EARLY,
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
    D: gl.constexpr,
    BLOCK: gl.constexpr,
    STAGES: gl.constexpr,
    EARLY: gl.constexpr,
    EPS: gl.constexpr,
    PDL: gl.constexpr,
):
    gl.static_assert(D == 2 * COLUMNS)
    lengths = (query_starts_ptr, context_lens_ptr)
    results = (y_ptr, parts_ptr, stats_ptr, arrivals_ptr)
    _attend(
        kv_desc, (qkv_ptr, q_weight_ptr, k_weight_ptr, angles_ptr), kv_ptr, lengths,
        (page_table_ptr, table_width_ptr), plan_ptr, results, layer, S,
        SCALE, L, Q, K, B, D, BLOCK, STAGES, EPS, True, PDL, EARLY,
    )  # fmt: skip
