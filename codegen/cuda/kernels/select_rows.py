"""y[r, :] = x[rows[r], :].

x bf16 [T, H], rows i32 [R] → y bf16 [R, H]. One program a row. Floor: 4·R·H bytes, or the launch.
"""

import triton
import triton.language as tl


@triton.jit
def select_rows(x_ptr, rows_ptr, y_ptr, H: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(rows_ptr + row).to(tl.int64)
    if PDL:
        tl.extra.cuda.gdc_wait()
    columns = tl.arange(0, BLOCK)
    inside = columns < H
    tl.store(y_ptr + row * H + columns, tl.load(x_ptr + source * H + columns, mask=inside), mask=inside)
