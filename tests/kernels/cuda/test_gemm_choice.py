"""Every product of every Qwen3 size, at any number of rows, has a launch that fits each architecture. No GPU."""

from __future__ import annotations

import pytest

from oi.codegen.cuda.arch import ARCHS, Arch
from oi.codegen.cuda.kernels.gemm import Even, Gemm, Gemv, Portable, Prefill, Skinny
from oi.codegen.cuda.tuning.gemm_table import MOST_F32_ROWS, choose_gemm
from oi.codegen.errors import CompileError
from tests.kernels.cuda.qwen3_products import MODELS, products

ODD = [Gemm(96, 48), Gemm(16, 256), Gemm(37, 8), Gemm(48, 208, swiglu=True), Gemm(336, 80, f32=True)]
ROWS = sorted({rows for p in range(14) for rows in (2**p - 1, 2**p, 2**p + 1, 3 * 2**p) if 1 <= rows <= 8192})


def check(gemm: Gemm, rows: int, arch: Arch) -> Gemv | Skinny | Even | Prefill | Portable:
    """The chosen launch, which must fit the architecture and the shape."""
    config = choose_gemm(gemm, rows, target=arch.name, multiprocessors=arch.multiprocessors).config
    match config:
        case Gemv():
            ring = 0
            assert gemm.n % config.rows == gemm.k % config.chunk == 0
            assert config.depth <= gemm.k // config.chunk
        case Portable():
            ring = config.shared_bytes(gemm) + config.step_bytes(gemm)  # at most
            assert config.splits <= -(-gemm.k // config.block_k)
            assert config.partial_bytes(gemm, rows) <= 32 << 20
            assert config.grid(gemm, rows) * config.block_m * config.block_n >= rows * gemm.n
        case Skinny():
            ring = config.shared_bytes(gemm, rows) + 16 * config.stages
            assert gemm.k % config.block_k == 0
            assert config.stages >= 2
        case Even():
            ring = config.shared_bytes(gemm, rows) + 16 * config.stages
            assert not gemm.f32
            assert gemm.k % config.block_k == 0
            assert config.stages >= 2
            assert config.splits(gemm) > 1
            assert config.grid(gemm) <= arch.multiprocessors, "its programs wait for one another"
        case Prefill():
            n = config.n0 + config.n1
            one_buffer = gemm.swiglu or config.block_m * n >= 32768
            y_tile = 2 * config.block_m * (config.n0 if one_buffer else n)
            ring = config.stages * (128 * (config.block_m + n) + 16) + y_tile
            assert 1 <= config.stages <= gemm.k // config.block_k
    assert ring <= arch.shared_bytes
    assert arch.name == "sm_90" or isinstance(config, Portable)
    return config


@pytest.mark.parametrize("arch", ARCHS.values(), ids=lambda arch: arch.name)
@pytest.mark.parametrize("model", MODELS)
def test_every_qwen3_has_launches(model: str, arch: Arch) -> None:
    for gemm in products(model):
        for rows in (r for r in ROWS if not gemm.f32 or r <= MOST_F32_ROWS):
            config = check(gemm, rows, arch)
            assert arch.name != "sm_90" or not isinstance(config, Portable), "Hopper's kernels take all of Qwen3"


@pytest.mark.parametrize("arch", ARCHS.values(), ids=lambda arch: arch.name)
@pytest.mark.parametrize("gemm", ODD, ids=str)
def test_shapes_that_hopper_kernels_cannot_take(gemm: Gemm, arch: Arch) -> None:
    for rows in (r for r in ROWS if not gemm.f32 or r <= MOST_F32_ROWS):
        assert isinstance(check(gemm, rows, arch), Portable)


def test_rows_that_are_not_aligned_have_none() -> None:
    with pytest.raises(CompileError, match="multiple of 8"):
        choose_gemm(Gemm(64, 100), 1)
