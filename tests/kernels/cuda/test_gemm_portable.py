"""The portable GEMM against float64: every tile, with and without splits, at shapes that fill no tile evenly."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, INTERPRETED, torch

# isort: split

from oi.codegen.cuda.kernels.gemm import Gemm, Portable
from oi.codegen.cuda.tuning.gemm_launch import Scratch, launch
from oi.codegen.cuda.tuning.gemm_table import default_portable
from tests.kernels.cuda.gemm_cases import assert_chain_in_graph, assert_close, random_case

pytestmark = pytest.mark.gpu

DEPENDENT = not INTERPRETED and torch.cuda.get_device_capability() >= (9, 0)
TILES = [
    Portable(16, 64, 128, 3),
    Portable(32, 64, 64, 4),
    Portable(64, 64, 64, 4),
    Portable(64, 128, 32, 5),
    Portable(128, 128, 32, 4),
    Portable(16, 32, 128, 3, splits=2),
    Portable(32, 64, 64, 4, splits=3),
    Portable(64, 128, 32, 5, splits=5),
    Portable(128, 64, 32, 4, splits=2, group_m=2),
]
ROWS = [1, 17, 70] if INTERPRETED else [1, 2, 15, 16, 17, 31, 64, 100, 129, 1025]
SHAPES = [(208, 272), (64, 384)] if INTERPRETED else [(208, 272), (2560, 4096)]


def scratch_for(gemm: Gemm, config: Portable, rows: int) -> Scratch:
    """As much as the config asks for, and what it must not touch: NaN after each."""
    scratch = Scratch(config.partial_bytes(gemm, rows) + 1024, config.tiles(gemm, rows) + 8, DEVICE)
    scratch.partial.fill_(torch.nan)
    return scratch


def run(
    gemm: Gemm, config: Portable, x: torch.Tensor, w: torch.Tensor, scratch: Scratch, dtype: torch.dtype
) -> torch.Tensor:
    """The kernel's y, in memory that held NaN; what lies after it, and after x and w, is NaN too."""
    rows = len(x)
    padded = torch.full((rows + 8, gemm.n), torch.nan, dtype=dtype, device=DEVICE)
    x, w = (torch.cat((a, torch.full((8, gemm.k), torch.nan, dtype=DTYPE, device=DEVICE)))[: len(a)] for a in (x, w))
    launch(gemm, config, x, w, padded[:rows], scratch, pdl=DEPENDENT)
    assert padded[rows:].isnan().all()
    assert scratch.partial[-256:].isnan().all()
    assert not scratch.tickets.any()
    return padded[:rows]


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("config", TILES, ids=str)
def test_every_tile(config: Portable, shape: tuple[int, int], swiglu: bool) -> None:
    gemm = Gemm(*shape, swiglu=swiglu)
    for rows in ROWS:
        x, w, expected = random_case(gemm, rows)
        scratch = scratch_for(gemm, config, rows)
        first = run(gemm, config, x, w, scratch, DTYPE)
        assert_close(first, expected)
        if config.splits > 1:
            assert torch.equal(run(gemm, config, x, w, scratch, DTYPE), first), "two runs differ"


@pytest.mark.parametrize("rows", [1, 40] if INTERPRETED else [1, 40, 256])
def test_float32_result(rows: int) -> None:
    gemm = Gemm(336, 256, f32=True)
    for config in (TILES[0], TILES[3], TILES[6]):
        x, w, expected = random_case(gemm, rows)
        assert_close(run(gemm, config, x, w, scratch_for(gemm, config, rows), torch.float32), expected)


@pytest.mark.parametrize("gemm", [Gemm(96, 8), Gemm(37, 56), Gemm(16, 144, swiglu=True), Gemm(768, 256)], ids=str)
@pytest.mark.parametrize("rows", [1, 40] if INTERPRETED else [1, 40, 256, 8192])
def test_default_launch(gemm: Gemm, rows: int) -> None:
    config = default_portable(gemm, rows)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, config, x, w, scratch_for(gemm, config, rows), DTYPE), expected)


@pytest.mark.skipif(not DEPENDENT, reason="needs a GPU with dependent launches")
def test_dependent_launches_see_what_the_one_before_wrote() -> None:
    """Of split products, which share one scratch."""
    gemm, config, rows = Gemm(1024, 1024), Portable(16, 64, 128, 3, splits=4), 8
    x, w, _ = random_case(gemm, rows)
    scratch = scratch_for(gemm, config, rows)
    assert_chain_in_graph(lambda x, y: launch(gemm, config, x, w, y, scratch), x, w)
