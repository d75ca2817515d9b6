"""The portable GEMM compiles to tensor core products fed by 16-byte copies, in the shared memory that it says."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from oi.codegen.cuda.aot import compile_one
from oi.codegen.cuda.arch import ARCHS, Arch
from oi.codegen.cuda.kernels.gemm import Gemm, Portable
from oi.codegen.cuda.kernels.gemm_portable import gemm_portable
from oi.codegen.cuda.source import Argument, call, integer
from oi.runtime.cuda_library import Operand

TILES = [(16, 64, 128, 3), (32, 64, 64, 4), (64, 64, 64, 4), (64, 128, 32, 5), (128, 128, 32, 4)]
POINTERS = {"x_ptr": "*bf16", "w_ptr": "*bf16", "y_ptr": "*bf16", "partial_ptr": "*fp32", "ticket_ptr": "*i32"}


@pytest.mark.parametrize("arch", [ARCHS[name] for name in ("sm_80", "sm_90", "sm_120")], ids=lambda arch: arch.name)
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_tile(tile: tuple[int, int, int, int], arch: Arch) -> None:
    gemm = Gemm(1296, 2576, swiglu=True)
    block_m, block_n, block_k, stages = tile
    config = Portable(block_m, block_n // 2, block_k, stages, splits=4)
    given = {name: Argument(type, Operand(0)) for name, type in POINTERS.items()}
    launch = call(
        gemm_portable,
        (config.grid(gemm, 1),),
        {**given, "M": integer(1)},
        config.constants(gemm),
        num_warps=config.num_warps,
        pdl=arch.dependent_launches,
    )
    cubin = compile_one(launch.kernel, arch)
    hopper_product = arch.name == "sm_90" and block_m >= 64
    assert ("wgmma.mma_async" if hopper_product else "mma.sync") in cubin.ptx
    assert "cp.async.cg.shared.global" in cubin.ptx
    assert "cp.async.ca" not in cubin.ptx, "copies of fewer than 16 bytes"
    assert cubin.waits == ("cp.async.bulk.prefetch.L2" in cubin.ptx) == arch.dependent_launches
    assert cubin.shared_bytes == config.shared_bytes(gemm) + (config.step_bytes(gemm) if hopper_product else 0)
    assert 2 * (cubin.shared_bytes + 1024) <= arch.shared_bytes + 1024, "two programs share a multiprocessor"
