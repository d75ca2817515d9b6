"""y = x / sqrt(mean(x², last dim) + eps) ∘ weight.

x bf16 [T, H], weight bf16 [H] → y bf16 [T, H]; float32 within. One program a row.
Floor: 4·T·H bytes; at decode sizes the launch itself (about 1.2 µs chained by dependent launches).
"""

import triton
import triton.language as tl


@triton.jit
def rms_norm(x_ptr, weight_ptr, y_ptr, H: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    columns = tl.arange(0, BLOCK)
    inside = columns < H
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0)
    if PDL:
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64) * H
    x = tl.load(x_ptr + row + columns, mask=inside, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x) / H + EPS) * weight.to(tl.float32)
    tl.store(y_ptr + row + columns, y.to(y_ptr.dtype.element_ty), mask=inside)
