"""y[t, :] = table[tokens[t], :].

tokens i32 [T], table bf16 [V, H] → y bf16 [T, H]. One program a row. Floor: 4·T·H bytes, or the launch.
"""

import triton
import triton.language as tl


@triton.jit
def embedding(tokens_ptr, table_ptr, y_ptr, H: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens_ptr + row).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < H
    tl.store(y_ptr + row * H + columns, tl.load(table_ptr + token * H + columns, mask=inside), mask=inside)
