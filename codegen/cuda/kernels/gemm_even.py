"""y[m, n] = Σ_k x[m, k] · weight[n, k] for some rows, bound by reading the weight, shared out evenly (Hopper, Gluon).

x bf16[M, K] · weight bf16[N, K] → y bf16[M, N], accumulated in float32.
With SWIGLU the weight is [gate ‖ up], bf16[2N, K], and y = silu(x·gateᵀ) ∘ (x·upᵀ).

Floor, operands, ring and dependencies are those of `gemm_skinny`; what differs is who does what. There the work is cut
where it comes out even, so that a program has parts of two tiles and more, and the last one to arrive adds up a tile's
partials while the others are done: the more rows, the longer that takes. Here every program computes WHOLE tiles alone,
and before them one of SPLITS equal parts of a tile of those that are left over. Its float32 partial is on its way to
memory while the whole tiles are computed; then each of a tile's programs adds one slice of all its partials. They do
that always in order of k: runs do not differ by a bit.

A tile's programs wait for one another, so all programs of a launch must get to run without any of them having ended.
What that rests on:
- There are no more of them than multiprocessors, and one fits each (whoever makes the launch sees to both).
- The kernels ahead of it, which may still run, wait for none that come later: they end, and leave their places.
- The kernel after it cannot take a place too early: it starts when *every* program here has called
  `gdc_launch_dependents`, which a program does that already runs.
- All else on the GPU ends by itself: KV pages move by copy engines, `copy_words` runs ahead of the graphs.
So it must not run beside another kernel that waits in this way, on a second stream or from a second process under MPS:
each could hold the places that the other one needs. (Processes that take turns, as without MPS, are no harm.)
On a GPU with fewer multiprocessors it would end only because programs start in order of their number, a tile's being
neighbours; CUDA does not promise that order.
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

from oi.codegen.cuda.kernels.gemm_skinny import load_weight, place_of, store_partial, store_tile
from oi.codegen.cuda.kernels.hopper_ring import ring_barriers

__all__ = ["gemm_even"]


@gluon.jit
def _part(K_TILES: gl.constexpr, WHOLE: gl.constexpr, REST: gl.constexpr, SPLITS: gl.constexpr,
          PROGRAMS: gl.constexpr):  # fmt: skip
    """(tile, first step, number of steps) of this program's part; no steps where it has none."""
    program = gl.program_id(0)
    split = program % SPLITS
    first = split * K_TILES // SPLITS
    steps = gl.where(program < REST * SPLITS, (split + 1) * K_TILES // SPLITS - first, 0)
    return WHOLE * PROGRAMS + program // SPLITS, first, steps


@gluon.jit
def _unit(index, part_tile, part_first, part_steps, K_TILES: gl.constexpr, PROGRAMS: gl.constexpr):
    """(tile, step) of the program's work, its part first."""
    whole = index - part_steps
    tile = gl.where(whole < 0, part_tile, gl.program_id(0) + whole // K_TILES * PROGRAMS)
    return tile, gl.where(whole < 0, part_first + index, whole % K_TILES)


@gluon.jit
def _producer(
    w_desc, x_desc, gate_smem, up_smem, x_smem, full, empty,
    N: gl.constexpr, K_TILES: gl.constexpr, WHOLE: gl.constexpr, REST: gl.constexpr, SPLITS: gl.constexpr,
    PROGRAMS: gl.constexpr, SWIGLU: gl.constexpr,
):  # fmt: skip
    STAGES: gl.constexpr = gate_smem.shape[0]
    BLOCK_N: gl.constexpr = gate_smem.shape[1]
    BLOCK_K: gl.constexpr = gate_smem.shape[2]
    BYTES: gl.constexpr = ((2 if SWIGLU else 1) * BLOCK_N + x_smem.shape[1]) * BLOCK_K * 2
    part_tile, part_first, part_steps = _part(K_TILES, WHOLE, REST, SPLITS, PROGRAMS)
    units = part_steps + WHOLE * K_TILES

    for s in gl.static_range(STAGES):
        mbarrier.expect(full.index(s), BYTES, pred=s < units)
        tile, step = _unit(s, part_tile, part_first, part_steps, K_TILES, PROGRAMS)
        load_weight(w_desc, gate_smem, up_smem, full, s, tile * BLOCK_N, step * BLOCK_K, s < units, N, SWIGLU)
    gdc_launch_dependents()
    gdc_wait()
    for s in gl.static_range(STAGES):
        tile, step = _unit(s, part_tile, part_first, part_steps, K_TILES, PROGRAMS)
        tma.async_copy_global_to_shared(x_desc, [0, step * BLOCK_K], full.index(s), x_smem.index(s), pred=s < units)

    for index in range(STAGES, units):
        stage = index % STAGES
        mbarrier.wait(empty.index(stage), (index // STAGES - 1) & 1)
        mbarrier.expect(full.index(stage), BYTES)
        tile, step = _unit(index, part_tile, part_first, part_steps, K_TILES, PROGRAMS)
        load_weight(w_desc, gate_smem, up_smem, full, stage, tile * BLOCK_N, step * BLOCK_K, True, N, SWIGLU)
        tma.async_copy_global_to_shared(x_desc, [0, step * BLOCK_K], full.index(stage), x_smem.index(stage))


@gluon.jit
def _multiply(gate_smem, up_smem, x_smem, full, empty, begin, steps, SWIGLU: gl.constexpr):
    """Sums [BLOCK_N, BLOCK_M] of gate and up over the ring's steps from `begin` on."""
    STAGES: gl.constexpr = gate_smem.shape[0]
    BLOCK_N: gl.constexpr = gate_smem.shape[1]
    BLOCK_M: gl.constexpr = x_smem.shape[1]
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, BLOCK_M, 16])
    gate = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, layout)
    up = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, layout)
    for index in range(begin, begin + steps):
        stage = index % STAGES
        mbarrier.wait(full.index(stage), index // STAGES & 1)
        x_t = x_smem.index(stage).permute((1, 0))
        gate_mma = warpgroup_mma(gate_smem.index(stage), x_t, gate, use_acc=index > begin, is_async=True)
        if SWIGLU:
            up_mma = warpgroup_mma(up_smem.index(stage), x_t, up, use_acc=index > begin, is_async=True)
            gate, up = warpgroup_mma_wait(0, deps=(gate_mma, up_mma))
        else:
            gate = warpgroup_mma_wait(0, deps=(gate_mma,))
        mbarrier.arrive(empty.index(stage))
    return gate, up


@gluon.jit
def _sum_parts(ptr, i, live, STRIDE: gl.constexpr, SPLITS: gl.constexpr):
    total = gl.load(ptr + i, mask=live, other=0.0, cache_modifier=".cg")
    for s in gl.static_range(1, SPLITS):
        total += gl.load(ptr + s * STRIDE + i, mask=live, other=0.0, cache_modifier=".cg")
    return total


@gluon.jit
def _store_slice(parts_ptr, y_ptr, slice_, column, M, N: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_M: gl.constexpr,
                 SPLITS: gl.constexpr, SWIGLU: gl.constexpr):  # fmt: skip
    """One of SPLITS slices of a tile whose parts lie one after another at parts_ptr."""
    PART: gl.constexpr = BLOCK_M * BLOCK_N
    STRIDE: gl.constexpr = (2 if SWIGLU else 1) * PART
    THREADS: gl.constexpr = gl.num_warps() * 32
    UNIT: gl.constexpr = 4 * THREADS if 4 * THREADS < PART else PART
    SLICE: gl.constexpr = (PART + SPLITS * UNIT - 1) // (SPLITS * UNIT) * UNIT
    EACH: gl.constexpr = 32 if SPLITS <= 4 else 16  # sums of a thread at once: so many loads are in flight
    PIECE: gl.constexpr = UNIT if SLICE <= UNIT else 2 * UNIT if SLICE <= 2 * UNIT else EACH // 4 * UNIT
    layout: gl.constexpr = gl.BlockedLayout([4], [32], [gl.num_warps()], [0])
    end = gl.minimum((slice_ + 1) * SLICE, PART)
    for begin in range(slice_ * SLICE, end, PIECE):
        i = begin + gl.arange(0, PIECE, layout)
        y = _sum_parts(parts_ptr, i, i < end, STRIDE, SPLITS)
        if SWIGLU:
            up = _sum_parts(parts_ptr + PART, i, i < end, STRIDE, SPLITS)
            y = y / (1.0 + gl.exp(-y)) * up
        n, m = place_of(i, column, BLOCK_N)
        gl.store(y_ptr + m.to(gl.int64) * N + n, y.to(y_ptr.dtype.element_ty), mask=(i < end) & (m < M) & (n < N))


@gluon.jit
def _consumer(
    gate_smem, up_smem, x_smem, full, empty, y_ptr, partial_ptr, ticket_ptr, M,
    N: gl.constexpr, K_TILES: gl.constexpr, WHOLE: gl.constexpr, REST: gl.constexpr, SPLITS: gl.constexpr,
    PROGRAMS: gl.constexpr, SWIGLU: gl.constexpr,
):  # fmt: skip
    BLOCK_N: gl.constexpr = gate_smem.shape[1]
    BLOCK_M: gl.constexpr = x_smem.shape[1]
    SLOT: gl.constexpr = (2 if SWIGLU else 1) * BLOCK_M * BLOCK_N
    program = gl.program_id(0)
    part_tile, _, part_steps = _part(K_TILES, WHOLE, REST, SPLITS, PROGRAMS)
    tickets = ticket_ptr + program // SPLITS

    gdc_launch_dependents()
    gdc_wait()
    if part_steps > 0:
        gate, up = _multiply(gate_smem, up_smem, x_smem, full, empty, 0, part_steps, SWIGLU)
        store_partial(gate, partial_ptr + program * SLOT)
        if SWIGLU:
            store_partial(up, partial_ptr + program * SLOT + BLOCK_M * BLOCK_N)
        gl.thread_barrier()  # the ticket releases the whole program's partial
        gl.atomic_add(tickets, 1, sem="release", scope="gpu")
    if WHOLE > 0:
        for i in range(WHOLE):
            begin = part_steps + i * K_TILES
            gate, up = _multiply(gate_smem, up_smem, x_smem, full, empty, begin, K_TILES, SWIGLU)
            store_tile(gate, up, y_ptr, (program + i * PROGRAMS) * BLOCK_N, M, N, SWIGLU)
    if part_steps > 0:
        while gl.atomic_add(tickets, 0, sem="acquire", scope="gpu") < SPLITS:
            pass
        parts_ptr = partial_ptr + program // SPLITS * (SPLITS * SLOT)
        column = part_tile * BLOCK_N
        _store_slice(parts_ptr, y_ptr, program % SPLITS, column, M, N, BLOCK_N, BLOCK_M, SPLITS, SWIGLU)
        if gl.atomic_add(tickets, 1, sem="relaxed", scope="gpu") == 2 * SPLITS - 1:
            gl.store(tickets, 0)  # nobody waits any more


@gluon.jit(do_not_specialize=["M"])
def gemm_even(
    w_desc,  # [N or 2N, K], box [BLOCK_N, BLOCK_K]
    x_desc,  # [M, K], box [BLOCK_M, BLOCK_K]
    y_ptr,  # [M, N]
    partial_ptr,  # f32 [REST, SPLITS, 1 or 2, BLOCK_M · BLOCK_N]: gate, up; scratch
    ticket_ptr,  # i32 [REST]; zero before the first launch, left zero by every launch
    M,
    N: gl.constexpr,
    K: gl.constexpr,
    BLOCK_N: gl.constexpr,
    BLOCK_M: gl.constexpr,
    BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr,
    WHOLE: gl.constexpr,
    REST: gl.constexpr,
    SPLITS: gl.constexpr,
    PROGRAMS: gl.constexpr,
    SWIGLU: gl.constexpr,
):
    """Grid: PROGRAMS; WHOLE · PROGRAMS + REST tiles of BLOCK_N columns of y, a split of the rest for each program."""
    K_TILES: gl.constexpr = K // BLOCK_K
    gl.static_assert(K % BLOCK_K == 0 and REST * SPLITS <= PROGRAMS and SPLITS > 1 and SPLITS <= K_TILES)

    gate_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_N, BLOCK_K], w_desc.layout)
    up_smem = gate_smem
    if SWIGLU:
        up_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_N, BLOCK_K], w_desc.layout)
    x_smem = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_M, BLOCK_K], x_desc.layout)
    full, empty = ring_barriers(STAGES)
    gl.warp_specialize(
        [
            (_consumer, (gate_smem, up_smem, x_smem, full, empty, y_ptr, partial_ptr, ticket_ptr, M,
                         N, K_TILES, WHOLE, REST, SPLITS, PROGRAMS, SWIGLU)),
            (_producer, (w_desc, x_desc, gate_smem, up_smem, x_smem, full, empty,
                         N, K_TILES, WHOLE, REST, SPLITS, PROGRAMS, SWIGLU)),
        ],
        [1],
        [40],
    )  # fmt: skip
