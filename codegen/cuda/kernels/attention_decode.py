"""y[t, h] = Σ_j softmax_j(scale · q[t, h]·k[j]) · v[j] for every sequence that has one query in this step.

q bf16 [T, Q, D], kv bf16 [N, L, 2, K, B, D], query_starts, context_lens i32 [S], page_table i32 [S, W],
table_width i32 [1] (W), plan of attention_decode_plan → y bf16 [T, Q, D]. Rows of other sequences are not touched.

The G = Q/K query heads of a KV head are the rows of one product, so that keys and values are read once. Programs
take equal shares of (sequence, head, block) units. A program that holds a whole (sequence, head) writes y; otherwise
it leaves its part (result and denominator) in scratch, and the last of the parts' programs to arrive
adds them up in their order: the result does not depend on who comes last.

    parts f32 [2·PROGRAMS, G, D]      a program's part of a head that began before it (2g), or ends after it (2g + 1)
    stats f32 [2·PROGRAMS, G]         log2 of their denominators, Σ exp(scale·q·k)
    arrivals i32 [S·K]                zero before the first launch; each launch leaves it zero

Plan, lengths and table_width must be complete before the chain of dependent launches begins: they are read before it
waits.
Floor: 4·K·D bytes a token of context.
"""

import triton
import triton.language as tl

from oi.codegen.cuda.kernels.paged_kv import find_pages, load_block


@triton.jit(do_not_specialize=["layer", "S"])
def attention_decode(
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
    SCALE: tl.constexpr,
    L: tl.constexpr,
    Q: tl.constexpr,
    K: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    G: tl.constexpr = Q // K
    ROWS: tl.constexpr = 16  # of which G are heads: the smallest tensor-core tile
    LOG2E: tl.constexpr = 1.4426950408889634
    program = tl.program_id(0)
    row = tl.arange(0, ROWS)
    d = tl.arange(0, D)
    is_head = (row < G)[:, None]
    PAGE: tl.constexpr = 2 * K * B * D  # of one layer

    table_width = tl.load(table_width_ptr)
    share = tl.load(plan_ptr)
    align = tl.load(plan_ptr + 1)
    total = tl.load(plan_ptr + 2 + S)
    unit = program * share
    end = tl.minimum(unit + share, total)
    # Idle programs look at sequence 0, so that what they read is defined.
    s = tl.where(unit < end, tl.load(plan_ptr + S + 3 + program), 0)
    first_unit = tl.load(plan_ptr + 2 + s)
    context_len = tl.load(context_lens_ptr + s)
    query_start = tl.load(query_starts_ptr + s)
    if PDL:
        tl.extra.cuda.gdc_wait()

    while unit < end:
        blocks = tl.cdiv(context_len, BLOCK)
        span = tl.cdiv(blocks, align) * align
        head = (unit - first_unit) // span
        begin = (unit - first_unit) % span
        stop = tl.minimum(blocks, begin + end - unit)
        head_unit = first_unit + head * span

        offset = query_start.to(tl.int64) * (Q * D) + (head * G + row)[:, None] * D + d[None, :]
        q = tl.load(q_ptr + offset, mask=is_head, other=0.0)
        head_kv_ptr = kv_ptr + layer.to(tl.int64) * PAGE + head * (B * D)
        pages_ptr = page_table_ptr + s.to(tl.int64) * table_width

        maximum = tl.full([ROWS], float("-inf"), tl.float32)
        denominator = tl.zeros([ROWS], tl.float32)
        numerator = tl.zeros([ROWS, D], tl.float32)
        page = find_pages(pages_ptr, begin * BLOCK + tl.arange(0, BLOCK), context_len, B)
        for block in tl.range(begin, stop, num_stages=STAGES):
            position = block * BLOCK + tl.arange(0, BLOCK)
            k, v = load_block(head_kv_ptr, page, position, context_len, L, K, B, D)
            page = find_pages(pages_ptr, position + BLOCK, context_len, B)
            scores = tl.dot(q, tl.trans(k)) * (SCALE * LOG2E)
            scores = tl.where((position < context_len)[None, :], scores, float("-inf"))
            raised = tl.maximum(maximum, tl.max(scores, axis=1))
            p = tl.exp2(scores - raised[:, None])
            shrink = tl.exp2(maximum - raised)
            denominator = denominator * shrink + tl.sum(p, axis=1)
            numerator = tl.dot(p.to(v.dtype), v, numerator * shrink[:, None])
            maximum = raised

        y = numerator / denominator[:, None]
        first_program = head_unit // share
        part_count = (head_unit + blocks - 1) // share - first_program + 1
        if part_count == 1:
            tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=is_head)
        else:
            slot = 2 * program + tl.where(begin == 0, 1, 0)
            tl.store(parts_ptr + slot * (G * D) + row[:, None] * D + d[None, :], y, mask=is_head)
            tl.store(stats_ptr + slot * G + row, maximum + tl.log2(denominator), mask=row < G)
            tl.debug_barrier()  # all threads' parts are written before one thread announces them
            arrival_ptr = arrivals_ptr + s * K + head
            if tl.atomic_add(arrival_ptr, 1, sem="acq_rel", scope="gpu") == part_count - 1:
                tl.store(arrival_ptr, 0)
                y_head_ptr = y_ptr + query_start.to(tl.int64) * (Q * D) + head * (G * D)
                _add_parts(parts_ptr, stats_ptr, y_head_ptr, first_program, part_count, G, D)
        unit = head_unit + span
        while (unit < end) & (unit == tl.load(plan_ptr + 3 + s)):  # s is done, or has no units
            s += 1
        first_unit = tl.load(plan_ptr + 2 + s)
        context_len = tl.load(context_lens_ptr + s)
        query_start = tl.load(query_starts_ptr + s)


@triton.jit
def _add_parts(parts_ptr, stats_ptr, y_head_ptr, first_program, part_count, G: tl.constexpr, D: tl.constexpr):
    """The first program's part lies in its second slot, every later one's in its first."""
    AT_ONCE: tl.constexpr = 16
    GP: tl.constexpr = triton.next_power_of_2(G)
    g = tl.arange(0, GP)
    d = tl.arange(0, D)
    is_head = g < G
    maximum = tl.full([GP], float("-inf"), tl.float32)
    total = tl.zeros([GP], tl.float32)
    y = tl.zeros([GP, D], tl.float32)
    for start in range(0, part_count, AT_ONCE):
        part = start + tl.arange(0, AT_ONCE)
        slot = 2 * (first_program + part) + tl.where(part == 0, 1, 0)
        live = (part < part_count)[:, None] & is_head[None, :]
        source = slot[:, None] * G + g[None, :]
        stats = tl.load(stats_ptr + source, mask=live, other=float("-inf"), cache_modifier=".cg")
        part_ptrs = parts_ptr + source[:, :, None] * D + d[None, None, :]
        parts = tl.load(part_ptrs, mask=live[:, :, None], other=0.0, cache_modifier=".cg")
        raised = tl.where(is_head, tl.maximum(maximum, tl.max(stats, axis=0)), 0.0)
        weights = tl.exp2(stats - raised[None, :])
        shrink = tl.exp2(maximum - raised)
        total = total * shrink + tl.sum(weights, axis=0)
        y = y * shrink[:, None] + tl.sum(parts * weights[:, :, None], axis=0)
        maximum = raised
    y = (y / total[:, None]).to(y_head_ptr.dtype.element_ty)
    tl.store(y_head_ptr + g[:, None] * D + d[None, :], y, mask=is_head[:, None])
