"""Launches that the table and the defaults give: they fit the machine and cover the work. No GPU."""

from __future__ import annotations

import pytest

from oi.codegen.cuda.kernels.gemm import SHARED_BYTES, Even, Gemm, Gemv, Portable, Prefill, Skinny, block_m
from oi.codegen.cuda.tuning.gemm_table import MOST_F32_ROWS, choose_gemm, default_gemm
from oi.codegen.errors import CompileError

SHAPES = [
    *(Gemm(n, k) for n, k in ((6144, 2560), (2560, 4096), (2560, 9728))),
    *(Gemm(n, k) for n, k in ((4096, 1024), (1024, 2048), (1024, 3072), (6144, 4096), (4096, 4096), (4096, 12288))),
    *(Gemm(n, k, swiglu=True) for n, k in ((9728, 2560), (3072, 1024), (12288, 4096))),
    *(Gemm(151936, k, f32=True) for k in (1024, 2560, 4096)),
]
ROWS = [1, 7, 8, 9, 16, 17, 32, 33, 64, 65, 100, 128, 129, 256, 300, 512, 1000, 1024, 1500, 2048, 4096, 8192, 20000]


@pytest.mark.parametrize("gemm", SHAPES, ids=str)
def test_every_launch_fits_the_machine(gemm: Gemm) -> None:
    for rows in (r for r in ROWS if not gemm.f32 or r <= MOST_F32_ROWS):
        for config in (choose_gemm(gemm, rows).config, default_gemm(gemm, rows)):
            if isinstance(config, Gemv):
                assert gemm.n % config.rows == gemm.k % config.chunk == 0
                assert config.depth <= gemm.k // config.chunk
                continue
            assert gemm.k % config.block_k == 0
            assert config.stages >= 2
            if isinstance(config, Portable):
                assert config.shared_bytes(gemm) + config.step_bytes(gemm) <= SHARED_BYTES
            elif isinstance(config, (Skinny, Even)):
                sums = (2 if gemm.swiglu else 1) * block_m(rows) // 2
                assert block_m(rows) <= 256
                assert sums <= 128
                assert config.shared_bytes(gemm, rows) + 512 <= SHARED_BYTES
            else:
                assert not gemm.f32
                assert gemm.k // config.block_k >= config.stages
                assert config.block_m * (config.n0 + config.n1) <= 256 * 160


def test_tuned_shapes_are_found_and_others_say_so() -> None:
    assert choose_gemm(Gemm(6144, 2560), 16).tuned
    assert not choose_gemm(Gemm(6144, 2624), 16).tuned
    assert not choose_gemm(Gemm(6144, 2560), 16, target="sm_999").tuned


def test_table_spans_do_not_overlap() -> None:
    for gemm in SHAPES[:3]:
        kinds = [type(choose_gemm(gemm, rows).config) for rows in ROWS]
        assert kinds == sorted(kinds, key=[Gemv, Skinny, Even, Portable, Prefill].index)


def test_float32_results_have_a_bound() -> None:
    with pytest.raises(CompileError, match="at most 256 rows"):
        choose_gemm(Gemm(151936, 2560, f32=True), 257)


@pytest.mark.parametrize("programs", [1, 7, 96, 120, 132, 264])
@pytest.mark.parametrize("gemm", [Gemm(2560, 4096), Gemm(6144, 2560), Gemm(448, 1024)], ids=str)
def test_sharers_counts_the_programs_on_the_busiest_tile(gemm: Gemm, programs: int) -> None:
    config = Skinny(64, 128, 2, programs)
    steps, grid = gemm.k // 128, config.grid(gemm)
    units = config.tiles(gemm) * steps
    workers: dict[int, set[int]] = {}
    for program in range(grid):
        for unit in range(program * units // grid, (program + 1) * units // grid):
            workers.setdefault(unit // steps, set()).add(program)
    assert len(workers) == config.tiles(gemm)
    assert config.sharers(gemm) == max(map(len, workers.values()))


@pytest.mark.parametrize("programs", [7, 48, 96, 120, 132])
@pytest.mark.parametrize("gemm", [Gemm(2560, 4096), Gemm(9728, 2560, swiglu=True), Gemm(1096, 512)], ids=str)
def test_even_programs_cover_all_tiles(gemm: Gemm, programs: int) -> None:
    config = Even(64, 128, 2, programs)
    grid, splits, steps = config.grid(gemm), config.splits(gemm), gemm.k // 128
    assert grid <= programs
    done = dict.fromkeys(range(config.whole(gemm) * grid), steps)
    for program in range(config.rest(gemm) * splits):
        assert program < grid
        split = program % splits
        part = (split + 1) * steps // splits - split * steps // splits
        assert part >= 1
        tile = config.whole(gemm) * grid + program // splits
        done[tile] = done.get(tile, 0) + part
    assert done == dict.fromkeys(range(config.tiles(gemm)), steps)
    parts = config.rest(gemm) * splits
    assert config.partial_bytes(gemm, 100) == 4 * parts * (2 if gemm.swiglu else 1) * 128 * 64
    assert config.tickets(gemm) == config.rest(gemm)
