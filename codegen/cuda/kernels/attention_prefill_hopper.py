"""y[t, h] = Σ_{j ≤ position of t} softmax_j(scale · q[t, h]·k[j]) · v[j] for sequences with two or more queries.

The operation, plan, parts and arrivals of attention_prefill, for sm_90, in Gluon. Three roles in a block:

    producer     one warp: page table → one bulk tensor copy a page and half head, into a ring of STAGES tiles
    consumers    two warpgroups of 64 rows each (64/PACK tokens × PACK heads that share a KV head)

A consumer issues the next tile's q·kᵀ before the current tile's p·v, so that the tensor cores work while it computes
exponentials; the other consumer fills what gaps remain. Tiles run from the diagonal down; only those that reach past
a row's own position are masked. Keys and values are swizzled by the copy; nothing passes through registers but p.

Tensor maps: q as [T, Q, D] in boxes [64/PACK, PACK, 64]; kv as [N·L·2·K·B, D] in boxes [B, 64].
Floor: 4·D·Q·Σ(query, context pairs) floating-point operations.
"""

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

LOG2E = gl.constexpr(1.4426950408889634)
ROWS = gl.constexpr(64)  # of a consumer: the height of a warpgroup's matrix product
HALF = gl.constexpr(64)  # columns of one 128-byte swizzled copy


@gluon.jit
def locate(
    unit, plan_ptr, query_lens_ptr, context_lens_ptr, HEADS: gl.constexpr, TILE: gl.constexpr, BLOCK: gl.constexpr
):
    """(sequence, head, first query, queries, context before them, first block, end block, part, parts) of a unit."""
    splits = gl.load(plan_ptr + 1)
    packed = gl.load(plan_ptr + 2 + unit // (splits * HEADS))
    head = unit // splits % HEADS
    sequence = packed // 65536
    first = packed % 65536 * TILE
    query_len = gl.load(query_lens_ptr + sequence)
    before = gl.load(context_lens_ptr + sequence) - query_len
    blocks = (before + gl.minimum(first + TILE, query_len) - 1) // BLOCK + 1
    part_blocks = gl.cdiv(blocks, splits)
    part = unit % splits
    begin = part * part_blocks
    end = gl.minimum(blocks, begin + part_blocks)
    return sequence, head, first, query_len, before, begin, end, part, gl.cdiv(blocks, part_blocks)


@gluon.jit
def unit_of(turn):
    """Alternating direction, so that every program gets as many dear units as cheap ones."""
    programs = gl.num_programs(0)
    place = gl.program_id(0)
    return turn * programs + gl.where(turn % 2 == 0, place, programs - 1 - place)


@gluon.jit
def _produce(
    plan_ptr,
    lengths,
    descs,
    boxes,
    barriers,
    page_table_ptr,
    table_width,
    layer,
    L: gl.constexpr,
    K: gl.constexpr,
    G: gl.constexpr,
    B: gl.constexpr,
    D: gl.constexpr,
    PACK: gl.constexpr,
    BLOCK: gl.constexpr,
    STAGES: gl.constexpr,
):
    PER_HEAD: gl.constexpr = G // PACK
    TOKENS: gl.constexpr = ROWS // PACK
    HALVES: gl.constexpr = D // HALF
    PAGES: gl.constexpr = BLOCK // B
    query_starts_ptr, query_lens_ptr, context_lens_ptr = lengths
    q_desc, kv_desc = descs
    q_boxes, k_boxes, v_boxes = boxes
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    units = gl.load(plan_ptr) * K * PER_HEAD * gl.load(plan_ptr + 1)
    copied = 0  # tiles, since the start
    turns = 0  # query tiles, since the start
    for turn in range(0, gl.cdiv(units, gl.num_programs(0))):
        unit = unit_of(turn)
        if unit < units:
            s, head, first, query_len, before, begin, end, _part, _parts = locate(
                unit, plan_ptr, query_lens_ptr, context_lens_ptr, K * PER_HEAD, 2 * TOKENS, BLOCK
            )
            if begin < end:
                pages_ptr = page_table_ptr + s.to(gl.int64) * table_width
                last_page = (before + query_len - 1) // B
                token = gl.load(query_starts_ptr + s) + first
                mbarrier.wait(q_empty, (turns & 1) ^ 1)
                mbarrier.expect(q_full, 2 * ROWS * D * 2)
                for w in gl.static_range(2):
                    for half in gl.static_range(HALVES):
                        tma.async_copy_global_to_shared(
                            q_desc,
                            [token + w * TOKENS, head * PACK, half * HALF],
                            q_full,
                            q_boxes.index(w * HALVES + half),
                        )
                turns += 1
                for i in range(0, end - begin):
                    block = end - 1 - i
                    stage = copied % STAGES
                    phase = (copied // STAGES) & 1
                    lines = ()
                    for j in gl.static_range(PAGES):
                        page = gl.load(pages_ptr + gl.minimum(block * PAGES + j, last_page))
                        lines = lines + (((page * L + layer) * (2 * K) + head // PER_HEAD) * B,)
                    mbarrier.wait(k_empty.index(stage), phase ^ 1)
                    mbarrier.expect(k_full.index(stage), BLOCK * D * 2)
                    for j in gl.static_range(PAGES):
                        for half in gl.static_range(HALVES):
                            tma.async_copy_global_to_shared(
                                kv_desc,
                                [lines[j], half * HALF],
                                k_full.index(stage),
                                k_boxes.index((stage * HALVES + half) * PAGES + j),
                            )
                    mbarrier.wait(v_empty.index(stage), phase ^ 1)
                    mbarrier.expect(v_full.index(stage), BLOCK * D * 2)
                    for j in gl.static_range(PAGES):
                        for half in gl.static_range(HALVES):
                            tma.async_copy_global_to_shared(
                                kv_desc,
                                [lines[j] + K * B, half * HALF],
                                v_full.index(stage),
                                v_boxes.index((stage * HALVES + half) * PAGES + j),
                            )
                    copied += 1


@gluon.jit
def _consume(
    plan_ptr,
    lengths,
    results,
    tiles,
    barriers,
    W: gl.constexpr,
    SCALE: gl.constexpr,
    K: gl.constexpr,
    G: gl.constexpr,
    D: gl.constexpr,
    PACK: gl.constexpr,
    BLOCK: gl.constexpr,
    STAGES: gl.constexpr,
):
    PER_HEAD: gl.constexpr = G // PACK
    TOKENS: gl.constexpr = ROWS // PACK
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, SUMS, 2)
    ROW: gl.constexpr = gl.SliceLayout(1, SCORES)
    SUM_ROW: gl.constexpr = gl.SliceLayout(1, SUMS)
    VALUES: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    SCALE2: gl.constexpr = SCALE * LOG2E
    query_starts_ptr, query_lens_ptr, context_lens_ptr = lengths
    y_ptr, parts_ptr, stats_ptr, arrivals_ptr = results
    q_tiles, k_tiles, v_tiles = tiles
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers

    units = gl.load(plan_ptr) * K * PER_HEAD * gl.load(plan_ptr + 1)
    row = gl.arange(0, ROWS, layout=ROW)
    column = gl.arange(0, BLOCK, layout=gl.SliceLayout(0, SCORES))
    sum_row = gl.arange(0, ROWS, layout=SUM_ROW)
    d = gl.arange(0, D, layout=gl.SliceLayout(0, SUMS))
    no_scores = gl.full([ROWS, BLOCK], 0.0, gl.float32, layout=SCORES)
    taken = 0  # tiles of keys, since the start
    turns = 0  # query tiles, since the start
    q = q_tiles.index(W)
    for turn in range(0, gl.cdiv(units, gl.num_programs(0))):
        unit = unit_of(turn)
        if unit < units:
            s, head, first, query_len, before, begin, end, part, parts = locate(
                unit, plan_ptr, query_lens_ptr, context_lens_ptr, K * PER_HEAD, 2 * TOKENS, BLOCK
            )
            if begin < end:
                context_len = before + query_len
                limit = before + first + W * TOKENS + row // PACK
                first_limit = before + first + W * TOKENS

                mbarrier.wait(q_full, turns & 1)
                stage = taken % STAGES
                phase = (taken // STAGES) & 1
                mbarrier.wait(k_full.index(stage), phase)
                scores = warpgroup_mma(q, k_tiles.index(stage).permute([1, 0]), no_scores, use_acc=False)
                mbarrier.arrive(k_empty.index(stage))
                position = (end - 1) * BLOCK + column
                scores = gl.where(position[None, :] <= limit[:, None], scores, float("-inf"))
                # A row may see nothing of a block; 0 keeps its exponents from being inf - inf.
                maximum = gl.max(scores, 1) * SCALE2
                base = gl.where(maximum == float("-inf"), 0.0, maximum)
                weights = gl.exp2(scores * SCALE2 - base[:, None])
                denominator = gl.sum(weights, 1)
                p = gl.convert_layout(weights.to(gl.bfloat16), WEIGHTS)
                numerator = gl.full([ROWS, D], 0.0, gl.float32, layout=SUMS)

                if end * BLOCK > context_len:
                    # Slots after the context hold anything, and 0 · NaN is NaN: both consumers write the same zeros.
                    mbarrier.wait(v_full.index(stage), phase)
                    v_tile = v_tiles.index(stage)
                    v = v_tile.load(VALUES)
                    v_position = (end - 1) * BLOCK + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, VALUES))
                    v_tile.store(gl.where((v_position < context_len)[:, None], v, 0.0))
                    fence_async_shared()
                    gl.thread_barrier()

                for i in range(1, end - begin):
                    last_stage = stage
                    last_phase = phase
                    stage = (taken + i) % STAGES
                    phase = ((taken + i) // STAGES) & 1
                    mbarrier.wait(k_full.index(stage), phase, pred=i == 1)
                    next_scores = warpgroup_mma(
                        q, k_tiles.index(stage).permute([1, 0]), no_scores, use_acc=False, is_async=True
                    )
                    mbarrier.wait(v_full.index(last_stage), last_phase)
                    sums = warpgroup_mma(p, v_tiles.index(last_stage), numerator, is_async=True)
                    scores = warpgroup_mma_wait(1, deps=[next_scores])
                    mbarrier.arrive(k_empty.index(stage))
                    block = end - 1 - i
                    if block * BLOCK + BLOCK - 1 > first_limit:
                        position = block * BLOCK + column
                        scores = gl.where(position[None, :] <= limit[:, None], scores, float("-inf"))
                    raised = gl.maximum(maximum, gl.max(scores, 1) * SCALE2)
                    base = gl.where(raised == float("-inf"), 0.0, raised)
                    weights = gl.exp2(scores * SCALE2 - base[:, None])
                    shrink = gl.exp2(maximum - base)
                    denominator = denominator * shrink + gl.sum(weights, 1)
                    maximum = raised
                    next_p = gl.convert_layout(weights.to(gl.bfloat16), WEIGHTS)
                    # The next keys are awaited here and not above: without a branch between them, the assembler would
                    # move the wait for p·v up, before the exponentials that should run beside it.
                    after = taken + i + 1
                    mbarrier.wait(k_full.index(after % STAGES), (after // STAGES) & 1, pred=i + 1 < end - begin)
                    numerator, p, next_p = warpgroup_mma_wait(0, deps=[sums, p, next_p])
                    mbarrier.arrive(v_empty.index(last_stage))
                    numerator = numerator * gl.convert_layout(shrink, SUM_ROW)[:, None]
                    p = next_p

                mbarrier.arrive(q_empty)
                turns += 1
                taken += end - begin
                mbarrier.wait(v_full.index(stage), phase)
                numerator = warpgroup_mma(p, v_tiles.index(stage), numerator)
                mbarrier.arrive(v_empty.index(stage))

                query = first + W * TOKENS + sum_row // PACK
                live = query < query_len
                q_row = (gl.load(query_starts_ptr + s) + query).to(gl.int64) * (K * G) + head * PACK + sum_row % PACK
                y_ptrs = y_ptr + (q_row * D)[:, None] + d[None, :]
                total = gl.convert_layout(denominator, SUM_ROW)
                finished = parts == 1
                if parts > 1:
                    part_row = (unit * 2 + W) * ROWS + sum_row
                    gl.store(parts_ptr + (part_row.to(gl.int64) * D)[:, None] + d[None, :], numerator)
                    stats_ptrs = stats_ptr + (unit * 4 + W) * ROWS + sum_row
                    gl.store(stats_ptrs, gl.convert_layout(maximum, SUM_ROW))
                    gl.store(stats_ptrs + 2 * ROWS, total)
                    gl.thread_barrier()  # all threads' parts are written before one thread announces them
                    arrival_ptr = arrivals_ptr + (unit - part) * 2 + W
                    arrived = gl.atomic_add(arrival_ptr, 1, sem="acq_rel", scope="gpu")
                    if arrived == parts - 1:
                        gl.store(arrival_ptr, 0)
                        highest = gl.full([ROWS], float("-inf"), gl.float32, layout=SUM_ROW)
                        total = gl.full([ROWS], 0.0, gl.float32, layout=SUM_ROW)
                        numerator = gl.full([ROWS, D], 0.0, gl.float32, layout=SUMS)
                        for other in range(unit - part, unit - part + parts):
                            other_row = (other * 2 + W) * ROWS + sum_row
                            other_ptrs = parts_ptr + (other_row.to(gl.int64) * D)[:, None] + d[None, :]
                            other_stats = stats_ptr + (other * 4 + W) * ROWS + sum_row
                            other_maximum = gl.load(other_stats, cache_modifier=".cg")
                            raised2 = gl.maximum(highest, other_maximum)
                            base2 = gl.where(raised2 == float("-inf"), 0.0, raised2)
                            shrink2 = gl.exp2(highest - base2)
                            weight = gl.exp2(other_maximum - base2)
                            total = total * shrink2 + gl.load(other_stats + 2 * ROWS, cache_modifier=".cg") * weight
                            loaded = gl.load(other_ptrs, cache_modifier=".cg")
                            numerator = numerator * shrink2[:, None] + loaded * weight[:, None]
                            highest = raised2
                        finished = True
                if finished:
                    y = numerator / total[:, None]
                    gl.store(y_ptrs, y.to(gl.bfloat16), mask=live[:, None])


@gluon.jit(do_not_specialize=["layer"])
def attention_prefill_hopper(
    q_desc,
    kv_desc,
    query_starts_ptr,
    query_lens_ptr,
    context_lens_ptr,
    page_table_ptr,
    plan_ptr,
    y_ptr,
    parts_ptr,
    stats_ptr,
    arrivals_ptr,
    layer,
    table_width_ptr,
    SCALE: gl.constexpr,
    L: gl.constexpr,
    Q: gl.constexpr,
    K: gl.constexpr,
    B: gl.constexpr,
    D: gl.constexpr,
    PACK: gl.constexpr,
    BLOCK: gl.constexpr,
    STAGES: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    table_width = gl.load(table_width_ptr)
    if PDL:
        tl.extra.cuda.gdc_wait()
    G: gl.constexpr = Q // K
    HALVES: gl.constexpr = D // HALF
    TILE: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    BOX: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=3)
    q_tiles = gl.allocate_shared_memory(gl.bfloat16, [2, ROWS, D], TILE)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK, D], TILE)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK, D], TILE)
    # A swizzled tile lies in memory as its 64-column halves, one after another: a page of a half is contiguous.
    q_boxes = q_tiles._reinterpret(gl.bfloat16, [2 * HALVES, ROWS // PACK, PACK, HALF], BOX)
    k_boxes = k_tiles._reinterpret(gl.bfloat16, [STAGES * HALVES * BLOCK // B, B, HALF], TILE)
    v_boxes = v_tiles._reinterpret(gl.bfloat16, [STAGES * HALVES * BLOCK // B, B, HALF], TILE)

    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    mbarrier.init(q_empty, count=2)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=2)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(v_empty.index(i), count=2)
    fence_async_shared()

    lengths = (query_starts_ptr, query_lens_ptr, context_lens_ptr)
    results = (y_ptr, parts_ptr, stats_ptr, arrivals_ptr)
    descs = (q_desc, kv_desc)
    tiles = (q_tiles, k_tiles, v_tiles)
    boxes = (q_boxes, k_boxes, v_boxes)
    barriers = (q_full, q_empty, k_full, k_empty, v_full, v_empty)
    gl.warp_specialize(
        [
            (_consume, (plan_ptr, lengths, results, tiles, barriers, 0, SCALE, K, G, D, PACK, BLOCK, STAGES)),
            (_consume, (plan_ptr, lengths, results, tiles, barriers, 1, SCALE, K, G, D, PACK, BLOCK, STAGES)),
            (
                _produce,
                (
                    plan_ptr,
                    lengths,
                    descs,
                    boxes,
                    barriers,
                    page_table_ptr,
                    table_width,
                    layer,
                    L,
                    K,
                    G,
                    B,
                    D,
                    PACK,
                    BLOCK,
                    STAGES,
                ),
            ),
        ],
        [4, 1],
        [240, 24],
    )
