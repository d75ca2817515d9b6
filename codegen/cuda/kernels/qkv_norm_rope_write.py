"""q = rope(rms_norm(qkv[:, :Q·D], q_weight));  k likewise;  v as it is;  kv' = kv_write(k, v).

qkv bf16 [T, (Q + 2K)·D], q_weight, k_weight bf16 [D], angles f32 [T, D], slots i32 [T],
kv bf16 [N, L, 2, K, B, D] (in place) → q bf16 [T, Q, D]. A slot of -1 writes nothing.

A program takes TOKENS tokens of one KV head: its G = Q/K query heads, its key and its value, side by side as
HEADS ≥ G + 2 rows. Halves of a head are separate tensors, so that the rotation needs no shuffle.
Floor: 4·T·(Q + 2K)·D bytes; at decode sizes the launch itself.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tokens", "layer"])
def qkv_norm_rope_write(
    qkv_ptr,
    q_weight_ptr,
    k_weight_ptr,
    angles_ptr,
    slots_ptr,
    kv_ptr,
    q_ptr,
    tokens,
    layer,
    L: tl.constexpr,
    Q: tl.constexpr,
    K: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
    EPS: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    G: tl.constexpr = Q // K
    HALF: tl.constexpr = D // 2
    kv_head = tl.program_id(1)
    t = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    j = tl.arange(0, HEADS)
    d = tl.arange(0, HALF)
    is_q = j < G
    is_k = j == G
    q_weight_lo = tl.load(q_weight_ptr + d)
    q_weight_hi = tl.load(q_weight_ptr + HALF + d)
    k_weight_lo = tl.load(k_weight_ptr + d)
    k_weight_hi = tl.load(k_weight_ptr + HALF + d)
    slot = tl.load(slots_ptr + t, mask=t < tokens, other=-1)
    if PDL:
        tl.extra.cuda.gdc_wait()

    head = tl.where(is_q, kv_head * G + j, Q + kv_head + tl.where(is_k, 0, K))
    live = (t < tokens)[:, None, None] & (j < G + 2)[None, :, None]
    source = qkv_ptr + t.to(tl.int64)[:, None, None] * ((Q + 2 * K) * D) + (head * D)[None, :, None] + d[None, None, :]
    lo = tl.load(source, mask=live, other=0.0).to(tl.float32)
    hi = tl.load(source + HALF, mask=live, other=0.0).to(tl.float32)
    angle = angles_ptr + t[:, None] * D + d[None, :]
    cos = tl.load(angle, mask=(t < tokens)[:, None], other=0.0)[:, None, :]
    sin = tl.load(angle + HALF, mask=(t < tokens)[:, None], other=0.0)[:, None, :]

    scale = tl.rsqrt((tl.sum(lo * lo, axis=2) + tl.sum(hi * hi, axis=2)) / D + EPS)[:, :, None]
    lo_normed = lo * scale * tl.where(is_q[:, None], q_weight_lo[None, :], k_weight_lo[None, :]).to(tl.float32)[None]
    hi_normed = hi * scale * tl.where(is_q[:, None], q_weight_hi[None, :], k_weight_hi[None, :]).to(tl.float32)[None]
    rotated = (is_q | is_k)[None, :, None]
    lo = tl.where(rotated, lo_normed * cos - hi_normed * sin, lo).to(q_ptr.dtype.element_ty)
    hi = tl.where(rotated, hi_normed * cos + lo_normed * sin, hi).to(q_ptr.dtype.element_ty)

    to_q = live & is_q[None, :, None]
    target = q_ptr + t.to(tl.int64)[:, None, None] * (Q * D) + (head * D)[None, :, None] + d[None, None, :]
    tl.store(target, lo, mask=to_q)
    tl.store(target + HALF, hi, mask=to_q)

    to_kv = live & (j >= G)[None, :, None] & (slot >= 0)[:, None, None]
    page = ((slot // B).to(tl.int64) * L + layer)[:, None] * 2 + tl.where(is_k, 0, 1)[None, :]
    line = (page * K + kv_head) * B + (slot % B)[:, None]
    target = kv_ptr + line[:, :, None] * D + d[None, None, :]
    tl.store(target, lo, mask=to_kv)
    tl.store(target + HALF, hi, mask=to_kv)
