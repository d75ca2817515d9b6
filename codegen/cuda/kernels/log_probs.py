"""lp[r, v] = logits[r, v] - logsumexp(logits[r, :]): of the chosen token, and of the TOP most likely. Two launches.

log_probs_chunks   logits f32 [R, V] → sums f32 [R, C, 2], best i64 [R, C, TOP]    one program a row and CHUNK columns
log_probs          those, logits, token i32 [R] → chosen f32 [R], top_tokens i32 [R, TOP], top f32 [R, TOP]

`sums` are each chunk's maximum and Σ exp(z - maximum); `best` its TOP highest in falling order, packed as in greedy.
A chunk lives in registers while its best are taken out one by one. Floor: 4·R·V bytes.
"""

import triton
import triton.language as tl

from oi.codegen.cuda.kernels.greedy import best_column, ordered_float, pack_best

NONE = tl.constexpr(-(2**63))


@triton.jit
def log_probs_chunks(
    logits_ptr, sums_ptr, best_ptr, V: tl.constexpr, CHUNK: tl.constexpr, TOP: tl.constexpr, PDL: tl.constexpr
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    column = chunk * CHUNK + tl.arange(0, CHUNK)
    z = tl.load(logits_ptr + row * V + column, mask=column < V, other=float("-inf"))
    place = row * tl.num_programs(1) + chunk
    maximum = tl.max(z)
    base = tl.where(maximum == float("-inf"), 0.0, maximum)
    tl.store(sums_ptr + 2 * place, maximum)
    tl.store(sums_ptr + 2 * place + 1, tl.sum(tl.exp(z - base)))
    left = tl.where(column < V, pack_best(z, column), NONE)
    for i in range(TOP):
        best = tl.max(left)
        tl.store(best_ptr + place * TOP + i, best)
        left = tl.where(left == best, NONE, left)


@triton.jit
def log_probs(
    logits_ptr,
    token_ptr,
    sums_ptr,
    best_ptr,
    chosen_ptr,
    top_tokens_ptr,
    top_ptr,
    V: tl.constexpr,
    C: tl.constexpr,
    C_BLOCK: tl.constexpr,
    TOP: tl.constexpr,
    BEST_BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, C_BLOCK)
    maxima = tl.load(sums_ptr + 2 * (row * C + chunk), mask=chunk < C, other=float("-inf"))
    sums = tl.load(sums_ptr + 2 * (row * C + chunk) + 1, mask=chunk < C, other=0.0)
    maximum = tl.max(maxima)
    normaliser = maximum + tl.log(tl.sum(sums * tl.exp(maxima - maximum)))
    tl.store(chosen_ptr + row, tl.load(logits_ptr + row * V + tl.load(token_ptr + row)) - normaliser)
    place = tl.arange(0, BEST_BLOCK)
    left = tl.load(best_ptr + row * (C * TOP) + place, mask=place < C * TOP, other=NONE)
    for i in range(TOP):
        best = tl.max(left)
        tl.store(top_tokens_ptr + row * TOP + i, best_column(best))
        tl.store(top_ptr + row * TOP + i, ordered_float((best >> 32).to(tl.int32)) - normaliser)
        left = tl.where(left == best, NONE, left)
