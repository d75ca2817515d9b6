"""lp[r, v] = logits[r, v] - logsumexp(logits[r, :]): of the chosen token, and of the TOP most likely. Two launches.

log_probs_chunks   logits f32 [R, V] → best i64 [R, C], sums f32 [R, C]   CHUNKS chunks of CHUNK columns a program
log_probs          those, logits, token i32 [R] → chosen f32 [R], top_tokens i32 [R, TOP], top f32 [R, TOP]
                   one program a row

`best` is a chunk's highest value, packed as in ordered.py, `sums` its Σ exp(z - highest). The TOP-th of the chunks'
best bounds what can be among the TOP, so that few chunks are read again; what lies above the bound is gathered and
ranked by counting. Should more than CANDIDATES lie there, the bound is first raised to the exact one by bisection.

    selected i32 [R, C_BLOCK], candidates i64 [R, CANDIDATES]     scratch
Floor: 4·R·V bytes.
"""

import triton
import triton.language as tl

from oi.codegen.cuda.kernels.ordered import (
    NONE,
    best_column,
    best_value,
    kth_of_chunks,
    pack_best,
    read_chunks,
    select_chunks,
)


@triton.jit
def log_probs_chunks(
    logits_ptr,
    best_ptr,
    sums_ptr,
    V: tl.constexpr,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1) * CHUNKS + tl.arange(0, CHUNKS)
    z, best, base = read_chunks(logits_ptr, row, chunk, V, CHUNK)
    tl.store(best_ptr + row * C + chunk, best, mask=chunk < C)
    tl.store(sums_ptr + row * C + chunk, tl.sum(tl.exp(z - base[:, None]), axis=1), mask=chunk < C)


@triton.jit
def _gather(
    row_ptr,
    best,
    least,
    selected_ptr,
    candidates_ptr,
    V: tl.constexpr,
    C_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    CANDIDATES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copy the row's packed values that are at least `least`, as far as they fit; return how many there are."""
    length = select_chunks(best, least, selected_ptr, C_BLOCK) * CHUNK
    count = 0
    for start in range(0, length, BLOCK):
        i = start + tl.arange(0, BLOCK)
        column = tl.load(selected_ptr + i // CHUNK, mask=i < length, other=0) * CHUNK + i % CHUNK
        z = tl.load(row_ptr + column, mask=(i < length) & (column < V), other=float("-inf"))
        packed = pack_best(z, column)
        kept = (i < length) & (column < V) & (packed >= least)
        place = count + tl.cumsum(kept.to(tl.int32)) - 1
        tl.store(candidates_ptr + place, packed, mask=kept & (place < CANDIDATES))
        count += tl.sum(kept.to(tl.int32))
    tl.debug_barrier()
    return count


@triton.jit
def _exact_bound(row_ptr, low, high, TOP: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr):
    """The TOP-th largest packed value of a row, which lies in [low, high]."""
    high += 1
    while low + 1 < high:
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        count = tl.zeros([BLOCK], tl.int32)
        for start in range(0, V, BLOCK):
            column = start + tl.arange(0, BLOCK)
            z = tl.load(row_ptr + column, mask=column < V, other=float("-inf"))
            count += ((column < V) & (pack_best(z, column) >= middle)).to(tl.int32)
        if tl.sum(count) >= TOP:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def log_probs(
    logits_ptr,
    token_ptr,
    best_ptr,
    sums_ptr,
    chosen_ptr,
    top_tokens_ptr,
    top_ptr,
    selected_ptr,
    candidates_ptr,
    V: tl.constexpr,
    C: tl.constexpr,
    C_BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    TOP: tl.constexpr,
    CANDIDATES: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    AT_ONCE: tl.constexpr = 16
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * V
    chunk = tl.arange(0, C_BLOCK)
    best = tl.load(best_ptr + row * C + chunk, mask=chunk < C, other=NONE)
    sums = tl.load(sums_ptr + row * C + chunk, mask=chunk < C, other=0.0)
    highest = tl.max(best)
    maximum = best_value(highest)
    normaliser = maximum + tl.log(tl.sum(tl.where(sums > 0, sums * tl.exp(best_value(best) - maximum), 0.0)))
    tl.store(chosen_ptr + row, tl.load(row_ptr + tl.load(token_ptr + row)) - normaliser)

    least = kth_of_chunks(best_ptr + row * C, best, TOP, C)
    selected_ptr += row * C_BLOCK
    candidates_ptr += row * CANDIDATES
    count = _gather(row_ptr, best, least, selected_ptr, candidates_ptr, V, C_BLOCK, CHUNK, CANDIDATES, BLOCK)
    if count > CANDIDATES:
        # Half of the range of packed values, so that their sums do not overflow.
        least = _exact_bound(row_ptr, tl.maximum(least, -(2**62)), highest, TOP, V, BLOCK)
        count = _gather(row_ptr, best, least, selected_ptr, candidates_ptr, V, C_BLOCK, CHUNK, CANDIDATES, BLOCK)
    i = tl.arange(0, CANDIDATES)
    candidate = tl.load(candidates_ptr + i, mask=i < count, other=NONE)
    rank = tl.zeros([CANDIDATES], tl.int32)
    for start in range(0, count, AT_ONCE):
        j = start + tl.arange(0, AT_ONCE)
        other = tl.load(candidates_ptr + j, mask=j < count, other=NONE)
        rank += tl.sum((other[None, :] > candidate[:, None]).to(tl.int32), axis=1)
    is_top = (i < count) & (rank < TOP)
    tl.store(top_tokens_ptr + row * TOP + rank, best_column(candidate), mask=is_top)
    tl.store(top_ptr + row * TOP + rank, best_value(candidate) - normaliser, mask=is_top)
