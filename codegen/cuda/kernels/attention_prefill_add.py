"""y of the query tiles whose keys attention_prefill_few_hopper split: the sum of their parts, in their order.

query_starts, query_lens, context_lens i32 [S], plan of attention_prefill_plan, parts f32 [units, ROWS, D],
stats f32 [units, 2, ROWS] → y bf16 [T, Q, D]. Rows of other tiles are not touched.

A program takes SOME rows of a tile and KV head, and AT_ONCE parts of them at once: a kernel of its own does so on all
multiprocessors, where the last of a tile's programs to end would do it alone. Programs without work don't wait.
"""

import triton
import triton.language as tl


@triton.jit
def attention_prefill_add(
    query_starts_ptr,
    query_lens_ptr,
    context_lens_ptr,
    plan_ptr,
    parts_ptr,
    stats_ptr,
    y_ptr,
    Q: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    PACK: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    SOME: tl.constexpr,
    AT_ONCE: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    G: tl.constexpr = Q // K
    TILE: tl.constexpr = ROWS // PACK
    CHUNKS: tl.constexpr = ROWS // SOME
    splits = tl.load(plan_ptr + 1)
    chunks = tl.where(splits > 1, tl.load(plan_ptr) * (K * CHUNKS), 0)
    if PDL:
        # The first program waits even if idle, lest this kernel end before the one ahead of it.
        works = tl.program_id(0) < chunks
        if works | (tl.program_id(0) == 0):
            tl.extra.cuda.gdc_wait()
    i = tl.arange(0, AT_ONCE)
    d = tl.arange(0, D)
    for chunk in range(tl.program_id(0), chunks, tl.num_programs(0)):
        pair = chunk // CHUNKS  # of tile and head
        packed = tl.load(plan_ptr + 2 + pair // K)
        head = pair % K
        row = chunk % CHUNKS * SOME + tl.arange(0, SOME)
        s = packed // 65536
        first = packed % 65536 * TILE
        query = first + row // PACK
        query_len = tl.load(query_lens_ptr + s)
        live = (query < query_len) & (row % PACK < G)
        before = tl.load(context_lens_ptr + s) - query_len
        blocks = (before + tl.minimum(first + TILE, query_len) - 1) // BLOCK + 1
        parts = tl.cdiv(blocks, tl.cdiv(blocks, splits))
        if (parts > 1) & (tl.max(live.to(tl.int32)) > 0):
            maximum = tl.full([SOME], float("-inf"), tl.float32)
            total = tl.zeros([SOME], tl.float32)
            sums = tl.zeros([SOME, D], tl.float32)
            for start in range(0, parts, AT_ONCE):
                there = (start + i < parts)[:, None] & live[None, :]
                unit = (pair * splits + start + i).to(tl.int64)
                stats_ptrs = stats_ptr + unit[:, None] * (2 * ROWS) + row[None, :]
                part_ptrs = parts_ptr + (unit[:, None] * ROWS + row[None, :])[:, :, None] * D + d[None, None, :]
                loaded = tl.load(part_ptrs, mask=there[:, :, None], other=0.0, cache_modifier=".cg")
                stats = tl.load(stats_ptrs, mask=there, other=float("-inf"), cache_modifier=".cg")
                totals = tl.load(stats_ptrs + ROWS, mask=there, other=0.0, cache_modifier=".cg")
                raised = tl.maximum(maximum, tl.max(stats, axis=0))
                # A row may see nothing of a part; 0 keeps its exponents from being inf - inf.
                base = tl.where(raised == float("-inf"), 0.0, raised)
                weights = tl.exp2(stats - base[None, :])
                shrink = tl.exp2(maximum - base)
                total = total * shrink + tl.sum(totals * weights, axis=0)
                sums = sums * shrink[:, None] + tl.sum(loaded * weights[:, :, None], axis=0)
                maximum = raised
            y_row = (tl.load(query_starts_ptr + s) + query).to(tl.int64) * Q + head * G + row % PACK
            y = (sums / total[:, None]).to(y_ptr.dtype.element_ty)
            tl.store(y_ptr + y_row[:, None] * D + d[None, :], y, mask=live[:, None])
