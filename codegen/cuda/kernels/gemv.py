"""y[m, n] = Σ_k x[m, k] · weight[n, k] for a handful of rows, bound by reading the weight (plain Triton, any GPU).

x bf16[M, K] · weight bf16[N, K] → y bf16 or f32[M, N], accumulated in float32.
With SWIGLU the weight is [gate ‖ up], bf16[2N, K], and y = silu(x·gateᵀ) ∘ (x·upᵀ).

Floor: the weight's bytes over the read bandwidth. Arithmetic of M rows costs as much at about M = 8.

Very many tiny programs, each with ROWS whole rows of y's columns: nothing is summed across programs, multiprocessors
that are slower get fewer of them, and rows are read from end to end.

Dependencies: the weight depends on no earlier kernel, so its first DEPTH chunks are in flight before the wait. While
the programs of one kernel run out, those of the next move in, so memory is never idle.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

__all__ = ["gemv"]


@triton.jit
def _products(w, x, M: tl.constexpr):
    """[ROWS, CHUNK] · [CHUNK] → [ROWS, CHUNK], or for several rows what a thread has of it, [ROWS, CHUNK / 8].

    One row's sums fit in the registers; adding eights would cost it time, as loads would be issued later.
    """
    products = w * x[None, :]
    if M > 1:
        products = tl.sum(products.reshape(w.shape[0], w.shape[1] // 8, 8), 2)
    return products


@triton.jit
def gemv(
    x_ptr,  # [M, K]
    w_ptr,  # [N or 2N, K]
    y_ptr,  # [M, N]
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    DEPTH: tl.constexpr,
    SWIGLU: tl.constexpr,
    PDL: tl.constexpr,
):
    """Grid: N / ROWS."""
    CHUNKS: tl.constexpr = K // CHUNK
    SUMS: tl.constexpr = CHUNK if M == 1 else CHUNK // 8
    tl.static_assert(N % ROWS == 0 and K % CHUNK == 0 and DEPTH <= CHUNKS)
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, CHUNK)
    gate_ptrs = w_ptr + n[:, None].to(tl.int64) * K + k[None, :]
    up_ptrs = gate_ptrs + N * K
    gates = ()
    ups = ()
    for c in tl.static_range(DEPTH):
        gates = gates + (tl.load(gate_ptrs + c * CHUNK, eviction_policy="evict_first"),)
        if SWIGLU:
            ups = ups + (tl.load(up_ptrs + c * CHUNK, eviction_policy="evict_first"),)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()

    gate_sums = ()
    up_sums = ()
    for _ in tl.static_range(M):
        gate_sums = gate_sums + (tl.zeros([ROWS, SUMS], tl.float32),)
        up_sums = up_sums + (tl.zeros([ROWS, SUMS], tl.float32),)
    for c in tl.static_range(CHUNKS):
        gate = gates[0].to(tl.float32)
        gates = gates[1:]
        if SWIGLU:
            up = ups[0].to(tl.float32)
            ups = ups[1:]
        if c + DEPTH < CHUNKS:
            gates = gates + (tl.load(gate_ptrs + (c + DEPTH) * CHUNK, eviction_policy="evict_first"),)
            if SWIGLU:
                ups = ups + (tl.load(up_ptrs + (c + DEPTH) * CHUNK, eviction_policy="evict_first"),)
        for m in tl.static_range(M):  # the sums go round: the first is always the next one's
            x = tl.load(x_ptr + (m * K + c * CHUNK) + k).to(tl.float32)
            gate_sums = gate_sums[1:] + (gate_sums[0] + _products(gate, x, M),)
            if SWIGLU:
                up_sums = up_sums[1:] + (up_sums[0] + _products(up, x, M),)
    for m in tl.static_range(M):
        y = tl.sum(gate_sums[m], 1)
        if SWIGLU:
            y = y / (1.0 + tl.exp(-y)) * tl.sum(up_sums[m], 1)
        tl.store(y_ptr + m * N + n, y.to(y_ptr.dtype.element_ty))
