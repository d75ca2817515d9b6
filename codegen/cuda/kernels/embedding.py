"""y[t, :] = table[token, :], token = tokens[t], or where that is negative sampled[-1 - tokens[t]].

tokens i32 [T], sampled i32 [R] of the step before, table bf16 [V, H] → y bf16 [T, H]. One program a row.
Floor: 4·T·H bytes, or the launch.
"""

import triton
import triton.language as tl


@triton.jit
def embedding(tokens_ptr, sampled_ptr, table_ptr, y_ptr, H: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens_ptr + row)
    # The last step's tokens are complete: its graph has ended before this one begins.
    token = tl.load(sampled_ptr - 1 - token, mask=token < 0, other=0) + tl.maximum(token, 0)
    columns = tl.arange(0, BLOCK)
    inside = columns < H
    y = tl.load(table_ptr + token.to(tl.int64) * H + columns, mask=inside)
    if PDL:
        tl.extra.cuda.gdc_wait()
    tl.store(y_ptr + row * H + columns, y, mask=inside)
