"""attention_prefill_hopper for steps of few queries, whose time is that of reading the keys and values once.

The operation and plan of attention_prefill, for sm_90, in Gluon. Two roles in a block:

    producer     one warp: page table → one bulk tensor copy a page and half head, into a ring of STAGES tiles
    consumer     one warpgroup of 64 rows (64/PACK tokens × a KV head's G query heads, filled up to a power of two)

The keys of a tile are split over as many programs as there are: a program has few blocks, and starts on them before
the kernels ahead have ended. Tiles run upwards, for the first hold only what earlier steps wrote: those the producer
copies before its wait, as many as the ring takes. Programs without work don't wait.

Where a tile's keys are split, y is left to attention_prefill_add:

    parts f32 [4·programs, 64, D]       unnormalized; rows that are no query's are not written
    stats f32 [4·programs, 2, 64]       log2 of the largest weight; sum of the weights relative to it

Tensor maps: q as [T, Q, D] in boxes [64/PACK, PACK, 64]; kv as [N·L·2·K·B, D] in boxes [B, 64].
Floor: Σ context · K·D·4 bytes.
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

from oi.codegen.cuda.kernels.attention_prefill_hopper import HALF, LOG2E, ROWS, locate, unit_of


@gluon.jit
def _copy(
    kv_desc, pages_ptr, last_page, block, layer, line, stage, phase, full, empty, boxes,
    L: gl.constexpr, K: gl.constexpr, B: gl.constexpr, D: gl.constexpr, BLOCK: gl.constexpr,
):  # fmt: skip
    """Keys or values of a block, once its stage is empty; `line` is a head's first in a layer of a page."""
    HALVES: gl.constexpr = D // HALF
    PAGES: gl.constexpr = BLOCK // B
    lines = ()
    for j in gl.static_range(PAGES):
        page = gl.load(pages_ptr + gl.minimum(block * PAGES + j, last_page))
        lines = lines + ((page * L + layer) * (2 * K * B) + line,)
    mbarrier.wait(empty.index(stage), phase ^ 1)
    mbarrier.expect(full.index(stage), BLOCK * D * 2)
    for j in gl.static_range(PAGES):
        for half in gl.static_range(HALVES):
            tma.async_copy_global_to_shared(
                kv_desc, [lines[j], half * HALF], full.index(stage), boxes.index((stage * HALVES + half) * PAGES + j)
            )


@gluon.jit
def _produce(
    plan_ptr, lengths, descs, boxes, barriers, page_table_ptr, table_width, layer,
    L: gl.constexpr, K: gl.constexpr, G: gl.constexpr, B: gl.constexpr, D: gl.constexpr, PACK: gl.constexpr,
    BLOCK: gl.constexpr, STAGES: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    HALVES: gl.constexpr = D // HALF
    query_starts_ptr, query_lens_ptr, context_lens_ptr = lengths
    q_desc, kv_desc = descs
    q_boxes, k_boxes, v_boxes = boxes
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    units = gl.load(plan_ptr) * K * gl.load(plan_ptr + 1)
    copied = 0  # blocks, since the start
    turns = 0  # query tiles, since the start
    for turn in range(0, gl.cdiv(units, gl.num_programs(0))):
        unit = unit_of(turn)
        if unit < units:
            s, head, first, query_len, before, begin, end, _part, _parts = locate(
                unit, plan_ptr, query_lens_ptr, context_lens_ptr, K, ROWS // PACK, BLOCK
            )
            if begin < end:
                pages_ptr = page_table_ptr + s.to(gl.int64) * table_width
                last_page = (before + query_len - 1) // B
                token = gl.load(query_starts_ptr + s) + first
                # Blocks that this step wrote nothing of, as many as the ring takes; one is left for after the wait.
                old = gl.minimum(gl.minimum(before // BLOCK, end - 1) - begin, STAGES)
                lead = gl.where(turn == 0, gl.maximum(old, 0), 0)
                for i in range(0, end - begin):
                    if i == lead:
                        if PDL:
                            tl.extra.cuda.gdc_wait()
                        mbarrier.wait(q_empty, (turns & 1) ^ 1)
                        mbarrier.expect(q_full, ROWS * D * 2)
                        for half in gl.static_range(HALVES):
                            tma.async_copy_global_to_shared(
                                q_desc, [token, head * G, half * HALF], q_full, q_boxes.index(half)
                            )
                    stage = copied % STAGES
                    phase = (copied // STAGES) & 1
                    k_line = head * B
                    _copy(
                        kv_desc, pages_ptr, last_page, begin + i, layer, k_line, stage, phase,
                        k_full, k_empty, k_boxes, L, K, B, D, BLOCK,
                    )  # fmt: skip
                    _copy(
                        kv_desc, pages_ptr, last_page, begin + i, layer, k_line + K * B, stage, phase,
                        v_full, v_empty, v_boxes, L, K, B, D, BLOCK,
                    )  # fmt: skip
                    copied += 1
                turns += 1


@gluon.jit
def _clear(v_tile, block, context_len, VALUES: gl.constexpr, BLOCK: gl.constexpr):
    """Slots after the context hold anything, and 0 · NaN is NaN."""
    position = block * BLOCK + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, VALUES))
    v_tile.store(gl.where((position < context_len)[:, None], v_tile.load(VALUES), 0.0))
    fence_async_shared()
    gl.thread_barrier()


@gluon.jit
def _consume(
    plan_ptr, lengths, results, tiles, barriers,
    SCALE: gl.constexpr, K: gl.constexpr, G: gl.constexpr, D: gl.constexpr, PACK: gl.constexpr,
    BLOCK: gl.constexpr, STAGES: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, SUMS, 2)
    ROW: gl.constexpr = gl.SliceLayout(1, SCORES)
    SUM_ROW: gl.constexpr = gl.SliceLayout(1, SUMS)
    VALUES: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    SCALE2: gl.constexpr = SCALE * LOG2E
    query_starts_ptr, query_lens_ptr, context_lens_ptr = lengths
    y_ptr, parts_ptr, stats_ptr = results
    q_tile, k_tiles, v_tiles = tiles
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers

    units = gl.load(plan_ptr) * K * gl.load(plan_ptr + 1)
    if PDL:
        # The first program waits even if idle, lest this kernel end before the one ahead of it.
        works = gl.program_id(0) < units
        if works | (gl.program_id(0) == 0):
            tl.extra.cuda.gdc_wait()
    row = gl.arange(0, ROWS, layout=ROW)
    column = gl.arange(0, BLOCK, layout=gl.SliceLayout(0, SCORES))
    sum_row = gl.arange(0, ROWS, layout=SUM_ROW)
    d = gl.arange(0, D, layout=gl.SliceLayout(0, SUMS))
    no_scores = gl.full([ROWS, BLOCK], 0.0, gl.float32, layout=SCORES)
    taken = 0  # blocks, since the start
    turns = 0  # query tiles, since the start
    for turn in range(0, gl.cdiv(units, gl.num_programs(0))):
        unit = unit_of(turn)
        if unit < units:
            s, head, first, query_len, before, begin, end, _part, parts = locate(
                unit, plan_ptr, query_lens_ptr, context_lens_ptr, K, ROWS // PACK, BLOCK
            )
            if begin < end:
                context_len = before + query_len
                first_limit = before + first
                limit = first_limit + row // PACK

                mbarrier.wait(q_full, turns & 1)
                stage = taken % STAGES
                phase = (taken // STAGES) & 1
                mbarrier.wait(k_full.index(stage), phase)
                scores = warpgroup_mma(q_tile, k_tiles.index(stage).permute([1, 0]), no_scores, use_acc=False)
                mbarrier.arrive(k_empty.index(stage))
                position = begin * BLOCK + column
                scores = gl.where(position[None, :] <= limit[:, None], scores, float("-inf"))
                # A row may see nothing of a block; 0 keeps its exponents from being inf - inf.
                maximum = gl.max(scores, 1) * SCALE2
                base = gl.where(maximum == float("-inf"), 0.0, maximum)
                weights = gl.exp2(scores * SCALE2 - base[:, None])
                denominator = gl.sum(weights, 1)
                p = gl.convert_layout(weights.to(gl.bfloat16), WEIGHTS)
                numerator = gl.full([ROWS, D], 0.0, gl.float32, layout=SUMS)

                for i in range(1, end - begin):
                    last_stage = stage
                    last_phase = phase
                    stage = (taken + i) % STAGES
                    phase = ((taken + i) // STAGES) & 1
                    mbarrier.wait(k_full.index(stage), phase, pred=i == 1)
                    next_scores = warpgroup_mma(
                        q_tile, k_tiles.index(stage).permute([1, 0]), no_scores, use_acc=False, is_async=True
                    )
                    mbarrier.wait(v_full.index(last_stage), last_phase)
                    sums = warpgroup_mma(p, v_tiles.index(last_stage), numerator, is_async=True)
                    scores = warpgroup_mma_wait(1, deps=[next_scores])
                    mbarrier.arrive(k_empty.index(stage))
                    block = begin + i
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
                    # The next keys are awaited here as in attention_prefill_hopper.
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
                if end * BLOCK > context_len:
                    _clear(v_tiles.index(stage), end - 1, context_len, VALUES, BLOCK)
                numerator = warpgroup_mma(p, v_tiles.index(stage), numerator)
                mbarrier.arrive(v_empty.index(stage))

                query = first + sum_row // PACK
                live = ((query < query_len) & (sum_row % PACK < G))[:, None]
                total = gl.convert_layout(denominator, SUM_ROW)
                if parts > 1:
                    part_row = unit.to(gl.int64) * ROWS + sum_row
                    gl.store(parts_ptr + (part_row * D)[:, None] + d[None, :], numerator, mask=live)
                    stats_ptrs = stats_ptr + unit * (2 * ROWS) + sum_row
                    gl.store(stats_ptrs, gl.convert_layout(maximum, SUM_ROW))
                    gl.store(stats_ptrs + ROWS, total)
                else:
                    y_row = (gl.load(query_starts_ptr + s) + query).to(gl.int64) * (K * G) + head * G + sum_row % PACK
                    y = numerator / total[:, None]
                    gl.store(y_ptr + (y_row * D)[:, None] + d[None, :], y.to(gl.bfloat16), mask=live)


@gluon.jit(do_not_specialize=["layer"])
def attention_prefill_few_hopper(
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
    G: gl.constexpr = Q // K
    HALVES: gl.constexpr = D // HALF
    TILE: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    BOX: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=3)
    q_tile = gl.allocate_shared_memory(gl.bfloat16, [ROWS, D], TILE)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK, D], TILE)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK, D], TILE)
    # A swizzled tile lies in memory as its 64-column halves, one after another: a page of a half is contiguous.
    q_boxes = q_tile._reinterpret(gl.bfloat16, [HALVES, ROWS // PACK, PACK, HALF], BOX)
    k_boxes = k_tiles._reinterpret(gl.bfloat16, [STAGES * HALVES * BLOCK // B, B, HALF], TILE)
    v_boxes = v_tiles._reinterpret(gl.bfloat16, [STAGES * HALVES * BLOCK // B, B, HALF], TILE)

    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    mbarrier.init(q_empty, count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(v_empty.index(i), count=1)
    fence_async_shared()

    lengths = (query_starts_ptr, query_lens_ptr, context_lens_ptr)
    results = (y_ptr, parts_ptr, stats_ptr)
    descs = (q_desc, kv_desc)
    tiles = (q_tile, k_tiles, v_tiles)
    boxes = (q_boxes, k_boxes, v_boxes)
    barriers = (q_full, q_empty, k_full, k_empty, v_full, v_empty)
    gl.warp_specialize(
        [
            (_consume, (plan_ptr, lengths, results, tiles, barriers, SCALE, K, G, D, PACK, BLOCK, STAGES, PDL)),
            (_produce, (plan_ptr, lengths, descs, boxes, barriers, page_table_ptr, table_width, layer,
                        L, K, G, B, D, PACK, BLOCK, STAGES, PDL)),
        ],
        [1],
        [40],
    )  # fmt: skip
