"""The GEMM kernels compile for sm_90 on a machine without a GPU, to the instructions that they are about."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("triton")

from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from oi.codegen.cuda.kernels.gemm import SHARED_BYTES, Gemm, Gemv, Prefill, Skinny
from oi.codegen.cuda.kernels.gemm_prefill import gemm_prefill
from oi.codegen.cuda.kernels.gemm_skinny import gemm_skinny
from oi.codegen.cuda.kernels.gemv import gemv
from oi.codegen.cuda.tuning.gemm_table import choose_gemm


def descriptor(box: tuple[int, int]) -> str:
    """A descriptor parameter in a signature."""
    return f"tensordesc<bf16{list(box)},{gl.NVMMASharedLayout.get_default_for(list(box), gl.bfloat16)!r}>"


def ptx(gemm: Gemm, config: Skinny | Prefill, rows: int) -> str:
    """Compile; the shared memory must fit."""
    if isinstance(config, Skinny):
        kernel, boxes, constants = gemm_skinny, config.boxes(rows), config.constants(gemm, rows)
        registers = config.max_registers(gemm, rows)
        others = {"y_ptr": "*fp32" if gemm.f32 else "*bf16", "partial_ptr": "*fp32", "ticket_ptr": "*i32", "M": "i32"}
    else:
        kernel, boxes, constants, registers = gemm_prefill, config.boxes(), config.constants(gemm), None
        others = {"M": "i32"}
    types = {**{name: descriptor(box) for name, box in boxes.items()}, **others}
    names = kernel.arg_names
    source = GluonASTSource(
        kernel,
        {name: "constexpr" if name in constants else types[name] for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name, type_ in types.items() if type_[0] == "*"},
    )
    options = {"num_warps": config.num_warps, "maxnreg": registers}
    compiled = compile_kernel(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert compiled.metadata.shared <= SHARED_BYTES
    assert len(compiled.asm["cubin"]) > 0
    return str(compiled.asm["ptx"])


@pytest.mark.parametrize("rows", [8, 16, 64, 128, 256, 1024, 2048, 8192])
@pytest.mark.parametrize(
    "gemm", [Gemm(2560, 4096), Gemm(9728, 2560, swiglu=True), Gemm(151936, 2560, f32=True)], ids=str
)
def test_chosen_launches_compile(gemm: Gemm, rows: int) -> None:
    if gemm.f32 and rows > 256:
        pytest.skip("logits have no more than 256 rows")
    text = ptx(gemm, choose_gemm(gemm, rows).config, rows)
    for instruction in ("wgmma.mma_async", "cp.async.bulk.tensor", "griddepcontrol.wait"):
        assert instruction in text


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("gemm", [Gemm(2560, 4096), Gemm(9728, 2560, swiglu=True)], ids=str)
def test_gemv_compiles(gemm: Gemm, rows: int, capability: int) -> None:
    config = Gemv(2, 2, 2)
    constants = {**config.constants(gemm, rows), "PDL": capability >= 90}
    names = gemv.arg_names
    source = ASTSource(
        gemv,
        {name: "constexpr" if name in constants else "*bf16" for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i in range(3)},
    )
    compiled = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": config.num_warps})
    text = str(compiled.asm["ptx"])
    weights = re.compile(r"ld\.global\.L1::evict_first\.\S*v4\.b32")  # 16 bytes at once
    assert weights.search(text)
    assert ("griddepcontrol.wait" in text) == (capability >= 90)
    if capability >= 90:
        before = text[: text.index("griddepcontrol.wait")]
        assert len(weights.findall(before)) == config.depth * (2 if gemm.swiglu else 1) * config.rows
