"""The GEMM kernels against a float64 product, on the GPU."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import INTERPRETED, torch

if INTERPRETED:
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from oi.codegen.cuda.kernels.gemm import Even, Gemm, Gemv, Prefill, Skinny
from oi.codegen.cuda.tuning.gemm_launch import Scratch, launch
from tests.kernels.cuda.gemm_cases import assert_chain_in_graph, assert_close, random_case

pytestmark = pytest.mark.gpu

DEPENDENT = [Gemv(2, 2, 2), Skinny(64, 64, 4, programs=132), *(Even(64, 64, 4, programs) for programs in (132, 14))]


def run(
    gemm: Gemm, config: Gemv | Skinny | Even | Prefill, x: torch.Tensor, w: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The kernel's y, in memory that held NaN; the rows after it must still hold NaN."""
    padded = torch.full((x.shape[0] + 8, gemm.n), torch.nan, dtype=dtype, device="cuda")
    scratch = Scratch(8 << 20)
    scratch.partial.fill_(torch.nan)
    launch(gemm, config, x, w, padded[: x.shape[0]], scratch)
    assert padded[x.shape[0] :].isnan().all()
    assert not scratch.tickets.any()
    return padded[: x.shape[0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    "config", [Gemv(1, 2, 2), Gemv(2, 1, 2), Gemv(2, 2, 2), Gemv(2, 3, 2), Gemv(4, 2, 4), Gemv(2, 2, 2, 256)], ids=str
)
def test_gemv(config: Gemv, rows: int, dtype: torch.dtype) -> None:
    gemm = Gemm(n=448, k=2560)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, config, x, w, dtype), expected)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_gemv_swiglu(rows: int) -> None:
    gemm = Gemm(n=320, k=1536, swiglu=True)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, Gemv(2, 2, 2), x, w, torch.bfloat16), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 3, 8, 9, 16, 33, 64, 100, 128])
@pytest.mark.parametrize(
    "config",
    [
        Skinny(64, 64, 4, programs=7),
        Skinny(64, 64, 3, programs=3),
        Skinny(64, 64, 2, programs=50),
        Skinny(128, 64, 2, programs=64),
        Skinny(128, 64, 3, programs=13),
        Skinny(64, 256, 2, programs=28),
    ],
    ids=str,
)
def test_skinny(config: Skinny, rows: int, dtype: torch.dtype) -> None:
    gemm = Gemm(n=448, k=1024)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, config, x, w, dtype), expected)


@pytest.mark.parametrize("rows", [1, 16, 77, 128])
@pytest.mark.parametrize("programs", [5, 2, 31])
def test_skinny_swiglu(programs: int, rows: int) -> None:
    gemm = Gemm(n=320, k=512, swiglu=True)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, Skinny(64, 64, 2, programs), x, w, torch.bfloat16), expected)


@pytest.mark.parametrize("rows", [1, 16, 29, 64, 77, 128, 200, 256])
@pytest.mark.parametrize(
    "config",
    [
        Even(64, 64, 5, programs=132),  # parts only, of 3 to 4 steps
        Even(64, 64, 3, programs=8),  # two whole tiles, and all work on parts of two more
        Even(64, 128, 2, programs=17),  # a whole tile, and all on parts of one more, of one step each
        Even(128, 64, 4, programs=7),  # a whole tile, and all but one on parts of two more
    ],
    ids=str,
)
def test_even(config: Even, rows: int) -> None:
    """The last tile of 1096 columns is half empty."""
    gemm = Gemm(n=1096, k=1600 if config.block_k == 64 else 2176)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, config, x, w, torch.bfloat16), expected)


@pytest.mark.parametrize("rows", [8, 25, 33, 128])
@pytest.mark.parametrize("programs", [4, 24])
def test_even_swiglu(programs: int, rows: int) -> None:
    """Whole tiles and parts of the rest, or parts only; the last tile of gate ends where up begins."""
    gemm = Gemm(n=328, k=512, swiglu=True)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, Even(64, 64, 3, programs), x, w, torch.bfloat16), expected)


@pytest.mark.parametrize("rows", [1, 127, 128, 300, 1025, 4000])
@pytest.mark.parametrize(
    "tile",
    [(128, 256, 0), (128, 128, 128), (128, 128, 64), (128, 128, 32), (128, 128, 0), (128, 64, 0), (256, 128, 32)],
    ids=str,
)
def test_prefill(tile: tuple[int, int, int], rows: int) -> None:
    gemm = Gemm(n=1088, k=512)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, Prefill.of_tile(gemm, *tile), x, w, torch.bfloat16), expected)


@pytest.mark.parametrize("rows", [1, 300, 8000])
def test_prefill_swiglu(rows: int) -> None:
    gemm = Gemm(n=384, k=512, swiglu=True)
    x, w, expected = random_case(gemm, rows)
    assert_close(run(gemm, Prefill.of_tile(gemm, 128, 128, 128), x, w, torch.bfloat16), expected)


@pytest.mark.parametrize(
    ("gemm", "config", "rows", "dtype"),
    [
        (Gemm(2560, 4096), Skinny(64, 64, 4, programs=264), 16, torch.float32),
        (Gemm(2560, 4096), Even(64, 64, 5, programs=132), 250, torch.bfloat16),
        (Gemm(2560, 9728), Even(64, 64, 9, programs=132), 99, torch.bfloat16),
        (Gemm(9728, 2560, swiglu=True), Even(64, 128, 5, programs=132), 31, torch.bfloat16),
    ],
    ids=["skinny", "even", "even wider", "even swiglu"],
)
def test_sum_of_partials_is_deterministic(gemm: Gemm, config: Skinny | Even, rows: int, dtype: torch.dtype) -> None:
    """The order in which splits arrive must not show: many runs beside a busy stream, one result."""
    x, w, expected = random_case(gemm, rows)
    first = run(gemm, config, x, w, dtype)
    assert_close(first, expected, f32_step=2.0**-16)
    busy = torch.cuda.Stream()
    for _ in range(50):
        with torch.cuda.stream(busy):
            torch.empty(1 << 22, device="cuda").normal_()
        assert torch.equal(run(gemm, config, x, w, dtype), first)


@pytest.mark.parametrize("config", DEPENDENT, ids=str)
def test_dependent_launches_see_what_the_one_before_wrote(config: Gemv | Skinny | Even) -> None:
    gemm, scratch = Gemm(1024, 1024), Scratch(8 << 20)
    x, w, _ = random_case(gemm, 4)
    assert_chain_in_graph(lambda x, y: launch(gemm, config, x, w, y, scratch), x, w)


@pytest.mark.parametrize("config", DEPENDENT, ids=str)
def test_dependent_launches_see_buffers_written_again(config: Gemv | Skinny | Even) -> None:
    """Two buffers in turn: what a multiprocessor has cached of one is old when its next reader begins early."""
    gemm, scratch = Gemm(1024, 1024), Scratch(8 << 20)
    x, w, _ = random_case(gemm, 4)
    ends = []

    def forward(wait: bool) -> torch.Tensor:
        buffers = [x.clone(), torch.full_like(x, torch.nan)]
        for i in range(64):
            launch(gemm, config, buffers[i % 2], w, buffers[1 - i % 2], scratch)
            if wait:
                torch.cuda.synchronize()
        return buffers[0]

    expected = forward(wait=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ends.append(forward(wait=False))
    for _ in range(5):
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(ends[0], expected)
