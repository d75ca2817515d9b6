"""The portable GEMM compiles to tensor core products fed by 16-byte copies, in the shared memory that it says."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from oi.codegen.cuda.arch import ARCHS, Arch
from oi.codegen.cuda.kernels.gemm import Gemm, Portable
from oi.codegen.cuda.kernels.gemm_portable import gemm_portable

TILES = [(16, 64, 128, 3), (32, 64, 64, 4), (64, 64, 64, 4), (64, 128, 32, 5), (128, 128, 32, 4)]
POINTERS = {"x_ptr": "*bf16", "w_ptr": "*bf16", "y_ptr": "*bf16", "partial_ptr": "*fp32", "ticket_ptr": "*i32"}


@pytest.mark.parametrize("arch", [ARCHS[name] for name in ("sm_80", "sm_90", "sm_120")], ids=lambda arch: arch.name)
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_tile(tile: tuple[int, int, int, int], arch: Arch) -> None:
    gemm = Gemm(1296, 2576, swiglu=True)
    block_m, block_n, block_k, stages = tile
    config = Portable(block_m, block_n // 2, block_k, stages, splits=4)
    constants = {**config.constants(gemm), "PDL": arch.dependent_launches}
    names = gemm_portable.arg_names
    source = ASTSource(
        gemm_portable,
        {name: "constexpr" if name in constants else POINTERS.get(name, "i32") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in POINTERS},
    )
    target = GPUTarget("cuda", arch.capability, 32)
    result = compile_kernel(source, target=target, options={"num_warps": config.num_warps})
    text = result.asm["ptx"]
    hopper_product = arch.name == "sm_90" and block_m >= 64
    assert ("wgmma.mma_async" if hopper_product else "mma.sync") in text
    assert "cp.async.cg.shared.global" in text
    assert "cp.async.ca" not in text, "copies of fewer than 16 bytes"
    assert ("griddepcontrol.wait" in text) == ("cp.async.bulk.prefetch.L2" in text) == arch.dependent_launches
    assert result.metadata.shared == config.shared_bytes(gemm) + (config.step_bytes(gemm) if hopper_product else 0)
    assert 2 * (result.metadata.shared + 1024) <= arch.shared_bytes + 1024, "two programs share a multiprocessor"
