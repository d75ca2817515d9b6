"""y[m, n] = Σ_k x[m, k] · weight[n, k] for few rows, bound by reading the weight (Hopper, Gluon).

x bf16[M, K] · weight bf16[N, K] → y bf16 or f32[M, N], accumulated in float32.
With SWIGLU the weight is [gate ‖ up], bf16[2N, K], and y = silu(x·gateᵀ) ∘ (x·upᵀ).

Floor: the weight's bytes over the read bandwidth; M ≤ BLOCK_M rows cost nothing more as long as tiles of x come out
of L2 (BLOCK_M / BLOCK_N bytes for each byte of weight).

The weight is the left operand of the tensor core product: 64 of its rows fill an instruction, and the M rows are the
instruction's columns, of which there may be as few as 8. One warp fills a ring of STAGES tiles in shared memory by TMA,
the others multiply.

Balance: the work is a line of units (tile of N, step of k), k fastest, cut into equal pieces, one for each program
(stream-K). A tile that several programs work on is summed from float32 partials by the last of them to arrive, always
in order of k: who is last differs from run to run, the sum does not.

Dependencies: the weight depends on no earlier kernel, so the ring is filled with it *before* the dependency wait, and
x follows after. The next kernel may start at once: where a program owns at most half of an SM's shared memory and
registers, the next kernel's rings fill while this one runs.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from oi.codegen.cuda.kernels.hopper_ring import ring_barriers

__all__ = ["gemm_skinny", "load_weight", "place_of", "store_partial", "store_tile"]


@gluon.jit
def load_weight(w_desc, gate_smem, up_smem, full, stage, row, k, pred, N: gl.constexpr, SWIGLU: gl.constexpr):
    tma.async_copy_global_to_shared(w_desc, [row, k], full.index(stage), gate_smem.index(stage), pred=pred)
    if SWIGLU:
        tma.async_copy_global_to_shared(w_desc, [N + row, k], full.index(stage), up_smem.index(stage), pred=pred)


@gluon.jit
def _producer(
    w_desc, x_desc, gate_smem, up_smem, x_smem, full, empty,
    N: gl.constexpr, K_TILES: gl.constexpr, UNITS: gl.constexpr, PROGRAMS: gl.constexpr, SWIGLU: gl.constexpr,
):  # fmt: skip
    STAGES: gl.constexpr = gate_smem.shape[0]
    BLOCK_N: gl.constexpr = gate_smem.shape[1]
    BLOCK_K: gl.constexpr = gate_smem.shape[2]
    BYTES: gl.constexpr = ((2 if SWIGLU else 1) * BLOCK_N + x_smem.shape[1]) * BLOCK_K * 2
    begin = gl.program_id(0) * UNITS // PROGRAMS
    end = (gl.program_id(0) + 1) * UNITS // PROGRAMS

    for s in gl.static_range(STAGES):
        unit = begin + s
        mbarrier.expect(full.index(s), BYTES, pred=unit < end)
        row = unit // K_TILES * BLOCK_N
        load_weight(w_desc, gate_smem, up_smem, full, s, row, unit % K_TILES * BLOCK_K, unit < end, N, SWIGLU)
    gdc_launch_dependents()
    gdc_wait()
    for s in gl.static_range(STAGES):
        k = (begin + s) % K_TILES * BLOCK_K
        tma.async_copy_global_to_shared(x_desc, [0, k], full.index(s), x_smem.index(s), pred=begin + s < end)

    for unit in range(begin + STAGES, end):
        index = unit - begin
        stage = index % STAGES
        mbarrier.wait(empty.index(stage), (index // STAGES - 1) & 1)
        mbarrier.expect(full.index(stage), BYTES)
        k = unit % K_TILES * BLOCK_K
        load_weight(w_desc, gate_smem, up_smem, full, stage, unit // K_TILES * BLOCK_N, k, True, N, SWIGLU)
        tma.async_copy_global_to_shared(x_desc, [0, k], full.index(stage), x_smem.index(stage))


@gluon.jit
def store_tile(gate, up, y_ptr, column, M, N: gl.constexpr, SWIGLU: gl.constexpr):
    """A tile that one program computed alone; gate and up are [BLOCK_N, BLOCK_M]."""
    y = gate
    if SWIGLU:
        y = gate / (1.0 + gl.exp(-gate)) * up
    # an unknown zero, lest all addresses be computed ahead of the loop over tiles and held in registers through it
    zero = gl.inline_asm_elementwise("mov.b32 $0, 0;", "=r", [], dtype=gl.int32, is_pure=False, pack=1)
    n = zero + column + gl.arange(0, gate.shape[0], gl.SliceLayout(1, gate.type.layout))[:, None]
    m = zero + gl.arange(0, gate.shape[1], gl.SliceLayout(0, gate.type.layout))[None, :]
    gl.store(y_ptr + m.to(gl.int64) * N + n, y.to(y_ptr.dtype.element_ty), mask=(n < N) & (m < M))


@gluon.jit
def store_partial(acc, ptr):
    """[BLOCK_N, BLOCK_M] → f32 [BLOCK_M / 8, BLOCK_N / 16, 8, 4, 2, 2]: a thread's sums lie together by fours."""
    N: gl.constexpr = acc.shape[0]
    M: gl.constexpr = acc.shape[1]
    flat = acc.reshape([N // 16, 2, 8, M // 8, 4, 2]).permute((3, 0, 2, 4, 1, 5)).reshape([N * M])
    gl.store(ptr + gl.arange(0, N * M, flat.type.layout), flat, cache_modifier=".cg")


@gluon.jit
def place_of(i, column, BLOCK_N: gl.constexpr):
    """(n, m) of what lies at i in the partial of the tile that begins at n = column."""
    n = column + i // 128 % (BLOCK_N // 16) * 16 + i // 2 % 2 * 8 + i // 16 % 8
    m = i // (8 * BLOCK_N) * 8 + i // 4 % 4 * 2 + i % 2
    return n, m


@gluon.jit
def _sum_partials(first_ptr, rest_ptr, y_ptr, column, sharers, M,
                  N: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_M: gl.constexpr, SHARERS: gl.constexpr,
                  SWIGLU: gl.constexpr):  # fmt: skip
    """The first sharer's partial lies at first_ptr, the others' two slots apart at rest_ptr.

    It is the kernel's tail: as many loads as registers hold are in flight at once.
    """
    PART: gl.constexpr = BLOCK_M * BLOCK_N
    STRIDE: gl.constexpr = 2 * (2 if SWIGLU else 1) * PART
    THREADS: gl.constexpr = gl.num_warps() * 32
    PIECE: gl.constexpr = PART if PART < 32 * THREADS else 32 * THREADS
    layout: gl.constexpr = gl.BlockedLayout([4], [32], [gl.num_warps()], [0])
    for begin in range(0, PART, PIECE):
        i = begin + gl.arange(0, PIECE, layout)
        y = gl.load(first_ptr + i, cache_modifier=".cg")
        for s in gl.static_range(1, SHARERS):
            there = (i >= 0) & (s < sharers)
            y += gl.load(rest_ptr + (s - 1) * STRIDE + i, mask=there, other=0.0, cache_modifier=".cg")
        if SWIGLU:
            up = gl.load(first_ptr + PART + i, cache_modifier=".cg")
            for s in gl.static_range(1, SHARERS):
                there = (i >= 0) & (s < sharers)
                up += gl.load(rest_ptr + (s - 1) * STRIDE + PART + i, mask=there, other=0.0, cache_modifier=".cg")
            y = y / (1.0 + gl.exp(-y)) * up
        n, m = place_of(i, column, BLOCK_N)
        gl.store(y_ptr + m.to(gl.int64) * N + n, y.to(y_ptr.dtype.element_ty), mask=(m < M) & (n < N))


@gluon.jit
def _consumer(
    gate_smem, up_smem, x_smem, full, empty, y_ptr, partial_ptr, ticket_ptr, M,
    N: gl.constexpr, K_TILES: gl.constexpr, UNITS: gl.constexpr, PROGRAMS: gl.constexpr, SHARERS: gl.constexpr,
    SWIGLU: gl.constexpr,
):  # fmt: skip
    STAGES: gl.constexpr = gate_smem.shape[0]
    BLOCK_N: gl.constexpr = gate_smem.shape[1]
    BLOCK_M: gl.constexpr = x_smem.shape[1]
    SLOT: gl.constexpr = (2 if SWIGLU else 1) * BLOCK_M * BLOCK_N
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, BLOCK_M, 16])
    program = gl.program_id(0)
    begin = program * UNITS // PROGRAMS
    end = (program + 1) * UNITS // PROGRAMS

    gdc_launch_dependents()
    gdc_wait()
    for tile in range(begin // K_TILES, (end - 1) // K_TILES + 1):
        gate = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, acc_layout)
        up = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, acc_layout)
        first = gl.maximum(tile * K_TILES, begin)
        for unit in range(first, gl.minimum((tile + 1) * K_TILES, end)):
            stage = (unit - begin) % STAGES
            mbarrier.wait(full.index(stage), (unit - begin) // STAGES & 1)
            x_t = x_smem.index(stage).permute((1, 0))
            gate_mma = warpgroup_mma(gate_smem.index(stage), x_t, gate, use_acc=unit > first, is_async=True)
            if SWIGLU:
                up_mma = warpgroup_mma(up_smem.index(stage), x_t, up, use_acc=unit > first, is_async=True)
                gate, up = warpgroup_mma_wait(0, deps=(gate_mma, up_mma))
            else:
                gate = warpgroup_mma_wait(0, deps=(gate_mma,))
            mbarrier.arrive(empty.index(stage))

        first_sharer = ((tile * K_TILES + 1) * PROGRAMS - 1) // UNITS
        sharers = ((tile + 1) * K_TILES * PROGRAMS - 1) // UNITS - first_sharer + 1
        if sharers == 1:
            store_tile(gate, up, y_ptr, tile * BLOCK_N, M, N, SWIGLU)
        else:
            own_ptr = partial_ptr + (program * 2 + (tile != begin // K_TILES).to(gl.int32)) * SLOT
            store_partial(gate, own_ptr)
            if SWIGLU:
                store_partial(up, own_ptr + BLOCK_M * BLOCK_N)
            gl.thread_barrier()  # the ticket releases the whole program's partial
            if gl.atomic_add(ticket_ptr + tile, 1, sem="acq_rel", scope="gpu") == sharers - 1:
                first_begin = first_sharer * UNITS // PROGRAMS
                first_ptr = partial_ptr + (first_sharer * 2 + (tile != first_begin // K_TILES).to(gl.int32)) * SLOT
                rest_ptr = partial_ptr + (first_sharer + 1) * (2 * SLOT)  # they begin in this tile
                column = tile * BLOCK_N
                _sum_partials(first_ptr, rest_ptr, y_ptr, column, sharers, M, N, BLOCK_N, BLOCK_M, SHARERS, SWIGLU)
                gl.store(ticket_ptr + tile, 0)


@gluon.jit(do_not_specialize=["M"])
def gemm_skinny(
    w_desc,  # [N or 2N, K], box [BLOCK_N, BLOCK_K]
    x_desc,  # [M, K], box [BLOCK_M, BLOCK_K]
    y_ptr,  # [M, N]
    partial_ptr,  # f32 [PROGRAMS, 2, 1 or 2, BLOCK_M · BLOCK_N]: of a program's first and last tile; gate, up; scratch
    ticket_ptr,  # i32 [⌈N / BLOCK_N⌉]; zero before the first launch, left zero by every launch
    M,
    N: gl.constexpr,
    K: gl.constexpr,
    BLOCK_N: gl.constexpr,
    BLOCK_M: gl.constexpr,
    BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr,
    PROGRAMS: gl.constexpr,
    SHARERS: gl.constexpr,
    SWIGLU: gl.constexpr,
):
    """Grid: PROGRAMS. SHARERS: the most programs that work on one tile."""
    K_TILES: gl.constexpr = K // BLOCK_K
    UNITS: gl.constexpr = (N + BLOCK_N - 1) // BLOCK_N * K_TILES
    gl.static_assert(K % BLOCK_K == 0 and PROGRAMS <= UNITS)

    gate_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_N, BLOCK_K], w_desc.layout)
    up_smem = gate_smem
    if SWIGLU:
        up_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_N, BLOCK_K], w_desc.layout)
    x_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_M, BLOCK_K], x_desc.layout)
    full, empty = ring_barriers(STAGES)
    gl.warp_specialize(
        [
            (_consumer, (gate_smem, up_smem, x_smem, full, empty, y_ptr, partial_ptr, ticket_ptr, M,
                         N, K_TILES, UNITS, PROGRAMS, SHARERS, SWIGLU)),
            (_producer, (w_desc, x_desc, gate_smem, up_smem, x_smem, full, empty,
                         N, K_TILES, UNITS, PROGRAMS, SWIGLU)),
        ],
        [1],
        [40],
    )  # fmt: skip
