"""y[t, h] = Σ_{j ≤ position of t} softmax_j(scale · q[t, h]·k[j]) · v[j] for sequences with two or more queries.

q bf16 [T, Q, D], kv bf16 [N, L, 2, K, B, D], query_starts, query_lens, context_lens i32 [S], page_table i32 [S, W],
table_width i32 [1] (W), plan of attention_prefill_plan → y bf16 [T, Q, D]. Rows of other sequences are not touched.

The form for any GPU: pages are gathered through pointers. Hopper has a faster one, attention_prefill_hopper.
A tile is TILE tokens × the G = Q/K heads that share a KV head (GP ≥ G rows a token). Programs take tiles in the
plan's order, dearest first, alternating direction so that each gets as much. A tile whose keys are split leaves its
parts in scratch; the last part's program to arrive adds them up in their order.

    parts f32 [4·programs, TILE·GP, D], stats f32 [4·programs, 2, TILE·GP]
    arrivals i32 [8·programs]                                       zero before the first launch, and after each

Floor: 2·Q·D·Σ(query·context pairs)·2 floating-point operations.
"""

import triton
import triton.language as tl

from oi.codegen.cuda.kernels.paged_kv import find_pages, load_block


@triton.jit(do_not_specialize=["layer"])
def attention_prefill(
    q_ptr,
    kv_ptr,
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
    SCALE: tl.constexpr,
    L: tl.constexpr,
    Q: tl.constexpr,
    K: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    table_width = tl.load(table_width_ptr)
    if PDL:
        tl.extra.cuda.gdc_wait()
    G: tl.constexpr = Q // K
    GP: tl.constexpr = triton.next_power_of_2(G)
    ROWS: tl.constexpr = TILE * GP
    LOG2E: tl.constexpr = 1.4426950408889634
    PAGE: tl.constexpr = 2 * K * B * D
    row = tl.arange(0, ROWS)
    d = tl.arange(0, D)
    programs = tl.num_programs(0)
    splits = tl.load(plan_ptr + 1)
    units = tl.load(plan_ptr) * K * splits

    for turn in range(0, tl.cdiv(units, programs)):
        place = tl.where(turn % 2 == 0, tl.program_id(0), programs - 1 - tl.program_id(0))
        unit = turn * programs + place
        if unit < units:
            head = unit // splits % K
            packed = tl.load(plan_ptr + 2 + unit // (splits * K))
            s = packed // 65536
            first = packed % 65536 * TILE
            query_len = tl.load(query_lens_ptr + s)
            before = tl.load(context_lens_ptr + s) - query_len
            # Of each row: the query's number in its sequence, and its position.
            query = first + row // GP
            limit = before + query
            all_blocks = (before + tl.minimum(first + TILE, query_len) - 1) // BLOCK + 1
            part_blocks = tl.cdiv(all_blocks, splits)
            part_count = tl.cdiv(all_blocks, part_blocks)
            part = unit % splits
            if part < part_count:
                live = ((query < query_len) & (row % GP < G))[:, None]
                token = tl.load(query_starts_ptr + s).to(tl.int64) + query
                offset = token[:, None] * (Q * D) + (head * G + row % GP)[:, None] * D + d[None, :]
                q = tl.load(q_ptr + offset, mask=live, other=0.0)
                head_kv_ptr = kv_ptr + layer.to(tl.int64) * PAGE + head * (B * D)
                pages_ptr = page_table_ptr + s.to(tl.int64) * table_width
                context_len = before + query_len
                maximum = tl.full([ROWS], float("-inf"), tl.float32)
                denominator = tl.zeros([ROWS], tl.float32)
                numerator = tl.zeros([ROWS, D], tl.float32)
                first_position = part * part_blocks * BLOCK
                page = find_pages(pages_ptr, first_position + tl.arange(0, BLOCK), context_len, B)
                for block in tl.range(
                    part * part_blocks, tl.minimum(all_blocks, (part + 1) * part_blocks), num_stages=STAGES
                ):
                    position = block * BLOCK + tl.arange(0, BLOCK)
                    k, v = load_block(head_kv_ptr, page, position, context_len, L, K, B, D)
                    page = find_pages(pages_ptr, position + BLOCK, context_len, B)
                    scores = tl.dot(q, tl.trans(k)) * (SCALE * LOG2E)
                    scores = tl.where(position[None, :] <= limit[:, None], scores, float("-inf"))
                    raised = tl.maximum(maximum, tl.max(scores, axis=1))
                    # A row may see nothing of this part; 0 keeps its exponents from being inf - inf.
                    base = tl.where(raised == float("-inf"), 0.0, raised)
                    p = tl.exp2(scores - base[:, None])
                    shrink = tl.exp2(maximum - base)
                    denominator = denominator * shrink + tl.sum(p, axis=1)
                    numerator = tl.dot(p.to(v.dtype), v, numerator * shrink[:, None])
                    maximum = raised

                if part_count > 1:
                    part_ptr = parts_ptr + unit * (ROWS * D) + row[:, None] * D + d[None, :]
                    tl.store(part_ptr, numerator, mask=live)
                    tl.store(stats_ptr + unit * (2 * ROWS) + row, maximum)
                    tl.store(stats_ptr + unit * (2 * ROWS) + ROWS + row, denominator)
                    tl.debug_barrier()  # all threads' parts are written before one thread announces them
                    arrival_ptr = arrivals_ptr + unit // splits
                    if tl.atomic_add(arrival_ptr, 1, sem="acq_rel", scope="gpu") == part_count - 1:
                        tl.store(arrival_ptr, 0)
                        maximum = tl.full([ROWS], float("-inf"), tl.float32)
                        denominator = tl.zeros([ROWS], tl.float32)
                        numerator = tl.zeros([ROWS, D], tl.float32)
                        for other in range(unit - part, unit - part + part_count):
                            stat_ptr = stats_ptr + other * (2 * ROWS) + row
                            other_maximum = tl.load(stat_ptr, cache_modifier=".cg")
                            other_denominator = tl.load(stat_ptr + ROWS, cache_modifier=".cg")
                            other_ptr = parts_ptr + other * (ROWS * D) + row[:, None] * D + d[None, :]
                            other_numerator = tl.load(other_ptr, mask=live, other=0.0, cache_modifier=".cg")
                            raised = tl.maximum(maximum, other_maximum)
                            base = tl.where(raised == float("-inf"), 0.0, raised)
                            shrink = tl.exp2(maximum - base)
                            weight = tl.exp2(other_maximum - base)
                            denominator = denominator * shrink + other_denominator * weight
                            numerator = numerator * shrink[:, None] + other_numerator * weight[:, None]
                            maximum = raised
                        y = (numerator / denominator[:, None]).to(y_ptr.dtype.element_ty)
                        tl.store(y_ptr + offset, y, mask=live)
                else:
                    y = (numerator / denominator[:, None]).to(y_ptr.dtype.element_ty)
                    tl.store(y_ptr + offset, y, mask=live)
