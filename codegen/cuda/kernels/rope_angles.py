"""y[t, i] = scale·cos(positions[t]·inv_freq[i]);  y[t, D/2 + i] = scale·sin(same).

positions i32 [T], inv_freq f32 [D/2] → y f32 [T, D]. One program a row; once a step for all layers.
"""

import triton
import triton.language as tl


@triton.jit
def rope_angles(positions_ptr, inv_freq_ptr, y_ptr, HALF: tl.constexpr, SCALE: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, HALF)
    angle = tl.load(positions_ptr + row).to(tl.float32) * tl.load(inv_freq_ptr + pair)
    cos = SCALE * tl.cos(angle)
    sin = SCALE * tl.sin(angle)
    if PDL:
        tl.extra.cuda.gdc_wait()
    tl.store(y_ptr + row * 2 * HALF + pair, cos)
    tl.store(y_ptr + row * 2 * HALF + HALF + pair, sin)
