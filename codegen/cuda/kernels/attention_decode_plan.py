"""Equal shares of a step's decode attention for a fixed number of programs; once a step for all layers.

query_lens, context_lens i32 [S] → plan i32 [4 + S + PROGRAMS].

A sequence with one query (others belong to prefill) has K·⌈context / BLOCK⌉ *units*: one KV head's scores against
BLOCK tokens. Units are numbered by sequence, head, block; program g takes units [g·share, (g + 1)·share).
With fewer heads than programs, every head's units are padded to a multiple of the share, the smallest for which
all fits, so that no program works on two heads.

    plan[0]              share
    plan[1]              what a head's units are padded to a multiple of: the share, or 1
    plan[2 … S + 2]      first unit of each sequence, then the number of all units
    plan[S + 3 …]        the sequence in which each program's units begin

So the split follows the number of programs and the step's work, never one sequence's length: one long context is
spread over the whole GPU, and many short ones are not split at all. One program, a few microseconds.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["S", "PROGRAMS"])
def attention_decode_plan(
    query_lens_ptr,
    context_lens_ptr,
    plan_ptr,
    S,
    PROGRAMS,
    S_BLOCK: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    PROGRAMS_BLOCK: tl.constexpr,
):
    s = tl.arange(0, S_BLOCK)
    query_len = tl.load(query_lens_ptr + s, mask=s < S, other=0)
    context_len = tl.load(context_lens_ptr + s, mask=s < S, other=0)
    blocks = tl.where(query_len == 1, tl.cdiv(context_len, BLOCK), 0)
    share = tl.cdiv(tl.sum(blocks) * K, PROGRAMS)
    align = 1
    if tl.sum((blocks > 0).to(tl.int32)) * K <= PROGRAMS:
        low = 0
        share = tl.maximum(tl.max(blocks), 1)
        while low + 1 < share:
            middle = (low + share) // 2
            if tl.sum(tl.cdiv(blocks, middle)) * K <= PROGRAMS:
                share = middle
            else:
                low = middle
        align = share
    units = K * tl.cdiv(blocks, align) * align
    ends = tl.cumsum(units)
    tl.store(plan_ptr, share)
    tl.store(plan_ptr + 1, align)
    tl.store(plan_ptr + 2 + s, ends - units, mask=s < S)
    tl.store(plan_ptr + 2 + S, tl.sum(units))

    # The sequence of unit u is the number of sequences that end at or before u.
    for start in range(0, PROGRAMS, PROGRAMS_BLOCK):
        program = start + tl.arange(0, PROGRAMS_BLOCK)
        before = (ends[None, :] <= (program * share)[:, None]) & (s < S)[None, :]
        tl.store(plan_ptr + S + 3 + program, tl.sum(before.to(tl.int32), axis=1), mask=program < PROGRAMS)
