"""token[r] = argmax_v logits[r, v], the lowest v on a tie. Two launches.

greedy_chunks   logits f32 [R, V] → best i64 [R, C]   one program a row and CHUNK columns, C = ⌈V / CHUNK⌉
greedy          best → token i32 [R]                  one program a row

`best` packs the logit in order-preserving bits above the inverted column, so that the maximum of these integers is
the answer in any order of comparison. Floor: 4·R·V bytes.
"""

import triton
import triton.language as tl

from oi.codegen.cuda.kernels.ordered import NONE, best_column, pack_best


@triton.jit
def greedy_chunks(logits_ptr, best_ptr, V: tl.constexpr, CHUNK: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    column = chunk * CHUNK + tl.arange(0, CHUNK)
    z = tl.load(logits_ptr + row * V + column, mask=column < V, other=float("-inf"))
    tl.store(best_ptr + row * tl.num_programs(1) + chunk, tl.max(pack_best(z, column)))


@triton.jit
def greedy(best_ptr, token_ptr, C: tl.constexpr, C_BLOCK: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    chunk = tl.arange(0, C_BLOCK)
    best = tl.load(best_ptr + row * C + chunk, mask=chunk < C, other=NONE)
    tl.store(token_ptr + row, best_column(tl.max(best)))
