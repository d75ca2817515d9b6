"""z = x + residual;  y = rms_norm(z, weight).

x, residual bf16 [T, H], weight bf16 [H] → z, y bf16 [T, H]. The norm reads z as stored, so that it equals the two
ops one by one. One program a row. Floor: 8·T·H bytes; at decode sizes the launch itself.
"""

import triton
import triton.language as tl


@triton.jit
def add_rms_norm(
    x_ptr,
    residual_ptr,
    weight_ptr,
    z_ptr,
    y_ptr,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
    EPS: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    columns = tl.arange(0, BLOCK)
    inside = columns < H
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0)
    if PDL:
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64) * H
    x = tl.load(x_ptr + row + columns, mask=inside, other=0.0).to(tl.float32)
    residual = tl.load(residual_ptr + row + columns, mask=inside, other=0.0).to(tl.float32)
    stored = (x + residual).to(z_ptr.dtype.element_ty)
    tl.store(z_ptr + row + columns, stored, mask=inside)
    z = stored.to(tl.float32)
    y = z * tl.rsqrt(tl.sum(z * z) / H + EPS) * weight.to(tl.float32)
    tl.store(y_ptr + row + columns, y.to(y_ptr.dtype.element_ty), mask=inside)
