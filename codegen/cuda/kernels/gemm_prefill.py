"""y[m, n] = Σ_k x[m, k] · weight[n, k] for many rows, bound by the tensor cores (Hopper, Gluon).

x bf16[M, K] · weight bf16[N, K] → y bf16[M, N], accumulated in float32.
With SWIGLU the weight is [gate ‖ up], bf16[2N, K], and y = silu(x·gateᵀ) ∘ (x·upᵀ).

Floor: 2·M·N·K (4 with SWIGLU) operations over the tensor cores' rate.

Persistent: each program strides over the output tiles. One warp loads tiles of x and of the weight by TMA into a ring
of STAGES; two warpgroups multiply, and their stores to memory overlap the next tile.
A tile is BLOCK_M × (N0 + N1): its columns are two parts, each a power of two as Triton wants it. Tiles of 160 or 192
columns cut N = 2560 and 6144 into numbers of tiles that fill 132 SMs, where otherwise K would have to be split.
With SWIGLU the parts are N0 columns of gate and the same N0 of up.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from oi.codegen.cuda.kernels.hopper_ring import ring_barriers

__all__ = ["gemm_prefill"]


@gluon.jit
def _tile_origin(tile, M, N: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, GROUP_M: gl.constexpr):
    """First row and column of a tile. GROUP_M tiles of rows are walked for each column of tiles, for L2's sake."""
    tiles_m = (M + BLOCK_M - 1) // BLOCK_M
    tiles_n: gl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    group = tile // (GROUP_M * tiles_n)
    in_group = tile % (GROUP_M * tiles_n)
    group_rows = gl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    return (group * GROUP_M + in_group % group_rows) * BLOCK_M, in_group // group_rows * BLOCK_N


@gluon.jit
def _load_weight(w0_desc, w1_desc, w0_smem, w1_smem, full, stage, n0, n1, k, N1: gl.constexpr):
    tma.async_copy_global_to_shared(w0_desc, [n0, k], full.index(stage), w0_smem.index(stage))
    if N1 > 0:
        tma.async_copy_global_to_shared(w1_desc, [n1, k], full.index(stage), w1_smem.index(stage))


@gluon.jit
def _producer(
    x_desc, w0_desc, w1_desc, x_smem, w0_smem, w1_smem, full, empty, M,
    N: gl.constexpr, K: gl.constexpr, N1: gl.constexpr, N1_OFFSET: gl.constexpr, BLOCK_N: gl.constexpr,
    GROUP_M: gl.constexpr,
):  # fmt: skip
    BLOCK_M: gl.constexpr = x_desc.block_shape[0]
    BLOCK_K: gl.constexpr = x_desc.block_shape[1]
    STAGES: gl.constexpr = x_smem.shape[0]
    BYTES: gl.constexpr = 2 * BLOCK_K * (BLOCK_M + w0_desc.block_shape[0] + N1)
    tiles = gl.cdiv(M, BLOCK_M) * ((N + BLOCK_N - 1) // BLOCK_N)

    # the weight depends on no earlier kernel: the first STAGES tiles of it are on their way before the wait
    first = gl.program_id(0)
    m, n = _tile_origin(first, M, N, BLOCK_M, BLOCK_N, GROUP_M)
    for s in gl.static_range(STAGES):
        mbarrier.expect(full.index(s), BYTES)
        _load_weight(w0_desc, w1_desc, w0_smem, w1_smem, full, s, n, n + N1_OFFSET, s * BLOCK_K, N1)
    gdc_wait()
    for s in gl.static_range(STAGES):
        tma.async_copy_global_to_shared(x_desc, [m, s * BLOCK_K], full.index(s), x_smem.index(s))

    stage = 0
    phase = 0
    for tile in range(first, tiles, gl.num_programs(0)):
        m, n = _tile_origin(tile, M, N, BLOCK_M, BLOCK_N, GROUP_M)
        for k in range(gl.where(tile == first, STAGES * BLOCK_K, 0), K, BLOCK_K):
            mbarrier.wait(empty.index(stage), phase)
            mbarrier.expect(full.index(stage), BYTES)
            tma.async_copy_global_to_shared(x_desc, [m, k], full.index(stage), x_smem.index(stage))
            _load_weight(w0_desc, w1_desc, w0_smem, w1_smem, full, stage, n, n + N1_OFFSET, k, N1)
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1


@gluon.jit
def _consumer(
    y0_desc, y1_desc, x_smem, w0_smem, w1_smem, full, empty, M,
    N: gl.constexpr, K: gl.constexpr, N0: gl.constexpr, N1: gl.constexpr, BLOCK_N: gl.constexpr,
    GROUP_M: gl.constexpr, SWIGLU: gl.constexpr,
):  # fmt: skip
    STAGES: gl.constexpr = x_smem.shape[0]
    BLOCK_M: gl.constexpr = x_smem.shape[1]
    BLOCK_K: gl.constexpr = x_smem.shape[2]
    tiles = gl.cdiv(M, BLOCK_M) * ((N + BLOCK_N - 1) // BLOCK_N)
    layout0: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, N0, 16])
    layout1: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, N1 if N1 > 0 else N0, 16])
    y_smem = gl.allocate_shared_memory(gl.bfloat16, [BLOCK_M, N0], y0_desc.layout)
    TWO_STORES: gl.constexpr = N1 > 0 and not SWIGLU
    ONE_BUFFER: gl.constexpr = BLOCK_M * (N0 + N1) >= 32768  # there is no room for both parts beside the ring
    if TWO_STORES:
        if ONE_BUFFER:
            y1_smem = y_smem._reinterpret(gl.bfloat16, [BLOCK_M, N1], y1_desc.layout)
        else:
            y1_smem = gl.allocate_shared_memory(gl.bfloat16, [BLOCK_M, N1], y1_desc.layout)

    stage = 0
    phase = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        m, n = _tile_origin(tile, M, N, BLOCK_M, BLOCK_N, GROUP_M)
        acc0 = gl.zeros([BLOCK_M, N0], gl.float32, layout0)
        if N1 > 0:
            acc1 = gl.zeros([BLOCK_M, N1], gl.float32, layout1)
        for k in range(0, K, BLOCK_K):
            mbarrier.wait(full.index(stage), phase)
            x = x_smem.index(stage)
            mma0 = warpgroup_mma(x, w0_smem.index(stage).permute((1, 0)), acc0, use_acc=k > 0, is_async=True)
            if N1 > 0:
                mma1 = warpgroup_mma(x, w1_smem.index(stage).permute((1, 0)), acc1, use_acc=k > 0, is_async=True)
                acc0, acc1 = warpgroup_mma_wait(2, deps=(mma0, mma1))
            else:
                acc0 = warpgroup_mma_wait(1, deps=(mma0,))
            # The products of the stage before are done. It is computed anew: Triton 3.6 does not carry a variable
            # through a loop that is only ever set to a copy of another or to a constant.
            mbarrier.arrive(empty.index((stage + STAGES - 1) % STAGES), pred=k > 0)
            stage += 1
            if stage == STAGES:
                stage = 0
                phase ^= 1
        if N1 > 0:
            acc0, acc1 = warpgroup_mma_wait(0, deps=(acc0, acc1))
        else:
            acc0 = warpgroup_mma_wait(0, deps=(acc0,))
        mbarrier.arrive(empty.index((stage + STAGES - 1) % STAGES))

        if SWIGLU:
            acc0 = acc0 / (1.0 + gl.exp(-acc0)) * acc1
        tma.store_wait(0)
        y_smem.store(acc0.to(gl.bfloat16))
        fence_async_shared()
        tma.async_copy_shared_to_global(y0_desc, [m, n], y_smem)
        if TWO_STORES:
            if ONE_BUFFER:
                tma.store_wait(0)
            y1_smem.store(acc1.to(gl.bfloat16))
            fence_async_shared()
            tma.async_copy_shared_to_global(y1_desc, [m, n + N0], y1_smem)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["M"])
def gemm_prefill(
    x_desc,  # [M, K], box [BLOCK_M, BLOCK_K]
    w0_desc,  # [N or 2N, K], box [N0, BLOCK_K]
    w1_desc,  # the same array, box [N1, BLOCK_K] ([N0, BLOCK_K] if N1 = 0)
    y0_desc,  # [M, N], box [BLOCK_M, N0]
    y1_desc,  # the same array, box [BLOCK_M, N1] ([BLOCK_M, N0] if N1 = 0)
    M,
    N: gl.constexpr,
    K: gl.constexpr,
    BLOCK_M: gl.constexpr,
    N0: gl.constexpr,
    N1: gl.constexpr,
    BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP_M: gl.constexpr,
    SWIGLU: gl.constexpr,
):
    """Grid: at most the number of tiles, ⌈M / BLOCK_M⌉ · ⌈N / (N0 + N1)⌉ (⌈N / N0⌉ with SWIGLU)."""
    BLOCK_N: gl.constexpr = N0 if SWIGLU else N0 + N1
    N1_OFFSET: gl.constexpr = N if SWIGLU else N0
    gl.static_assert(K % BLOCK_K == 0 and K >= STAGES * BLOCK_K)
    gl.static_assert(not SWIGLU or N0 == N1)

    x_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_M, BLOCK_K], x_desc.layout)
    w0_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, N0, BLOCK_K], w0_desc.layout)
    w1_smem = w0_smem
    if N1 > 0:
        w1_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, N1, BLOCK_K], w1_desc.layout)
    full, empty = ring_barriers(STAGES)
    gdc_launch_dependents()
    gl.warp_specialize(
        [
            (_consumer, (y0_desc, y1_desc, x_smem, w0_smem, w1_smem, full, empty, M,
                         N, K, N0, N1, BLOCK_N, GROUP_M, SWIGLU)),
            (_producer, (x_desc, w0_desc, w1_desc, x_smem, w0_smem, w1_smem, full, empty, M,
                         N, K, N1, N1_OFFSET, BLOCK_N, GROUP_M)),
        ],
        [1],
        [40],
    )  # fmt: skip
