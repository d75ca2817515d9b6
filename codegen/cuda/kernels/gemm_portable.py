"""y[m, n] = Σ_k x[m, k] · weight[n, k] for any number of rows, on every GPU that multiplies bf16 (plain Triton).

x bf16[M, K] · weight bf16[N, K] → y bf16 or f32[M, N], accumulated in float32; K is a multiple of 8.
With SWIGLU the weight is [gate ‖ up], bf16[2N, K], and y = silu(x·gateᵀ) ∘ (x·upᵀ).

Floor: the weight's bytes over the read bandwidth for few rows, 2·M·N·K (4 with SWIGLU) operations over the tensor
cores' rate for many. Hopper has faster ones, gemm_skinny and gemm_prefill.

A program computes one tile of y, or, where tiles are too few for the GPU, one of SPLITS parts of its sum over k: the
last of them to arrive adds the float32 partials, always in order of k. Who is last differs from run to run, the sum
does not.

Dependencies: the weight depends on no earlier kernel, so its first STAGES steps are on their way to L2 before the wait.
"""

import triton
import triton.language as tl

__all__ = ["gemm_portable"]


@triton.jit
def _tile_origin(tile, M, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """First row and column of a tile. GROUP_M tiles of rows are walked for each column of tiles, for L2's sake."""
    tiles_n: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    group = tile // (GROUP_M * tiles_n)
    in_group = tile % (GROUP_M * tiles_n)
    group_rows = tl.minimum(tl.cdiv(M, BLOCK_M) - group * GROUP_M, GROUP_M)
    return (group * GROUP_M + in_group % group_rows) * BLOCK_M, in_group // group_rows * BLOCK_N


@triton.jit
def _prefetch(row_ptrs, elements):
    """Ask L2 for the first bf16 elements, a multiple of 8, of each row."""
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.b32 $0, 0;",
        "=r,l,r",
        [row_ptrs, elements * 2],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _load_weight(ptrs, k, K: tl.constexpr, BLOCK_K: tl.constexpr):
    if K % BLOCK_K == 0:
        return tl.load(ptrs + k)
    return tl.load(ptrs + k, mask=(k + tl.arange(0, BLOCK_K) < K)[None, :], other=0.0)


@triton.jit
def _store(y_ptr, gate, up, m, n, M, N: tl.constexpr, SWIGLU: tl.constexpr):
    y = gate
    if SWIGLU:
        y = gate / (1.0 + tl.exp(-gate)) * up
    y_ptrs = y_ptr + m.to(tl.int64)[:, None] * N + n[None, :]
    tl.store(y_ptrs, y.to(y_ptr.dtype.element_ty), mask=(m < M)[:, None] & (n < N)[None, :])


@triton.jit
def _sum_parts(ptrs, live, STRIDE: tl.constexpr, SPLITS: tl.constexpr):
    total = tl.load(ptrs, mask=live, other=0.0, cache_modifier=".cg")
    for s in tl.static_range(1, SPLITS):
        total += tl.load(ptrs + s * STRIDE, mask=live, other=0.0, cache_modifier=".cg")
    return total


@triton.jit
def _store_sum(parts_ptr, y_ptr, first_row, n, M, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
               SPLITS: tl.constexpr, SWIGLU: tl.constexpr):  # fmt: skip
    """A tile whose parts lie one after another at parts_ptr."""
    ROWS: tl.constexpr = 16  # at a time
    PART: tl.constexpr = BLOCK_M * BLOCK_N
    STRIDE: tl.constexpr = (2 if SWIGLU else 1) * PART
    in_rows = tl.arange(0, ROWS * BLOCK_N).reshape(ROWS, BLOCK_N)
    for row in range(0, tl.minimum(BLOCK_M, M - first_row), ROWS):
        m = first_row + row + tl.arange(0, ROWS)
        live = (m < M)[:, None] & (n < N)[None, :]
        ptrs = parts_ptr + row * BLOCK_N + in_rows
        gate = _sum_parts(ptrs, live, STRIDE, SPLITS)
        up = gate
        if SWIGLU:
            up = _sum_parts(ptrs + PART, live, STRIDE, SPLITS)
        _store(y_ptr, gate, up, m, n, M, N, SWIGLU)


@triton.jit(do_not_specialize=["M"])
def gemm_portable(
    x_ptr,  # [M, K]
    w_ptr,  # [N or 2N, K]
    y_ptr,  # [M, N]
    partial_ptr,  # f32 [tiles, SPLITS, 1 or 2, BLOCK_M, BLOCK_N]: gate, up; scratch, unused without splits
    ticket_ptr,  # i32 [tiles]; zero before the first launch, left zero by every launch
    M,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    SPLITS: tl.constexpr,
    GROUP_M: tl.constexpr,
    SWIGLU: tl.constexpr,
    PDL: tl.constexpr,
):
    """Grid: ⌈M / BLOCK_M⌉ · ⌈N / BLOCK_N⌉ · SPLITS."""
    K_STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    tl.static_assert(K % 8 == 0 and SPLITS <= K_STEPS)
    tile = tl.program_id(0) // SPLITS
    split = tl.program_id(0) % SPLITS
    begin = split * K_STEPS // SPLITS
    end = (split + 1) * K_STEPS // SPLITS
    first_row, first_column = _tile_origin(tile, M, N, BLOCK_M, BLOCK_N, GROUP_M)
    m = first_row + tl.arange(0, BLOCK_M)
    n = first_column + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    x_ptrs = x_ptr + m.to(tl.int64)[:, None] * K + k[None, :]
    gate_rows = w_ptr + tl.minimum(n, N - 1).to(tl.int64) * K
    gate_ptrs = gate_rows[:, None] + k[None, :]
    up_ptrs = gate_ptrs + N * K

    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        first = begin * BLOCK_K
        _prefetch(gate_rows + first, tl.minimum(STAGES * BLOCK_K, K - first))
        if SWIGLU:
            _prefetch(gate_rows + N * K + first, tl.minimum(STAGES * BLOCK_K, K - first))
        tl.extra.cuda.gdc_wait()

    gate = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    up = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in tl.range(begin, end, num_stages=STAGES):
        inside = (m < M)[:, None] & (step * BLOCK_K + k < K)[None, :]
        x = tl.load(x_ptrs + step * BLOCK_K, mask=inside, other=0.0)
        gate = tl.dot(x, tl.trans(_load_weight(gate_ptrs, step * BLOCK_K, K, BLOCK_K)), gate)
        if SWIGLU:
            up = tl.dot(x, tl.trans(_load_weight(up_ptrs, step * BLOCK_K, K, BLOCK_K)), up)

    if SPLITS == 1:
        _store(y_ptr, gate, up, m, n, M, N, SWIGLU)
    else:
        PART: tl.constexpr = BLOCK_M * BLOCK_N
        SLOT: tl.constexpr = (2 if SWIGLU else 1) * PART
        parts_ptr = partial_ptr + tile.to(tl.int64) * (SPLITS * SLOT)
        own_ptrs = parts_ptr + split * SLOT + tl.arange(0, PART).reshape(BLOCK_M, BLOCK_N)
        live = (m < M)[:, None] & (n < N)[None, :]
        tl.store(own_ptrs, gate, mask=live)
        if SWIGLU:
            tl.store(own_ptrs + PART, up, mask=live)
        tl.debug_barrier()  # all threads' parts are written before one thread announces them
        if tl.atomic_add(ticket_ptr + tile, 1, sem="acq_rel", scope="gpu") == SPLITS - 1:
            tl.store(ticket_ptr + tile, 0)
            _store_sum(parts_ptr, y_ptr, first_row, n, M, N, BLOCK_M, BLOCK_N, SPLITS, SWIGLU)
