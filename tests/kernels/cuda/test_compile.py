"""The kernels of attention and sampling compile without a GPU, fit its shared memory, and use what they are about."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from oi.codegen.cuda.kernels.attention import AttentionShape, Decode, Prefill
from oi.codegen.cuda.kernels.attention_decode import attention_decode
from oi.codegen.cuda.kernels.attention_decode_hopper import attention_decode_hopper, qkv_attention_decode_hopper
from oi.codegen.cuda.kernels.attention_decode_plan import attention_decode_plan
from oi.codegen.cuda.kernels.attention_prefill import attention_prefill
from oi.codegen.cuda.kernels.attention_prefill_hopper import attention_prefill_hopper
from oi.codegen.cuda.kernels.attention_prefill_plan import attention_prefill_plan
from oi.codegen.cuda.kernels.log_probs import log_probs, log_probs_chunks
from oi.codegen.cuda.kernels.sample import sample, sample_chunks
from oi.codegen.cuda.kernels.sampling import LogProbs, Sample
from oi.codegen.cuda.tuning.attention_table import choose_decode, choose_prefill

SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 120: 99 << 10}
QWEN3_4B = AttentionShape(q_heads=32, kv_heads=8, head_dim=128, layers=36, scale=128**-0.5)
QWEN3_14B = AttentionShape(q_heads=40, kv_heads=8, head_dim=128, layers=40, scale=128**-0.5)
VOCABULARY = 151936
# Of each kernel's parameters that are not constants.
POINTERS = {
    "bf16": ("q_ptr", "kv_ptr", "y_ptr", "qkv_ptr", "q_weight_ptr", "k_weight_ptr"),
    "fp32": (
        *("parts_ptr", "stats_ptr", "logits_ptr", "sums_ptr", "chosen_ptr", "top_ptr", "original_ptr"),
        *("edit_scale_ptr", "edit_add_ptr", "temperature_ptr", "top_p_ptr", "min_p_ptr", "uniform_ptr", "angles_ptr"),
    ),
    "i64": ("best_ptr",),
}


def compiled(
    kernel: Any, constants: dict[str, Any], warps: int, capability: int, registers: int | None = None, **types: str
) -> Any:
    """Compile with dependent launches; the shared memory must fit."""
    names = kernel.arg_names
    constants = {**constants, **({"PDL": capability >= 90} if "PDL" in names else {})}
    known = {name: f"*{dtype}" for dtype, group in POINTERS.items() for name in group}
    signature = {}
    for name in names:
        default = "*i32" if name.endswith("_ptr") else "i32"
        signature[name] = "constexpr" if name in constants else types.get(name, known.get(name, default))
    source = (GluonASTSource if kernel.is_gluon() else ASTSource)(
        kernel,
        signature,
        {(names.index(name),): value for name, value in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")},
    )
    options = {"num_warps": warps, "maxnreg": registers}
    result = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert result.metadata.shared <= SHARED_BYTES[capability]
    return result


@pytest.mark.parametrize("capability", [80, 89, 90, 120])
def test_decode(capability: int) -> None:
    config: Decode = choose_decode(1, target="any")
    compiled(attention_decode_plan, config.plan_constants(QWEN3_4B), 8, capability)
    result = compiled(attention_decode, config.constants(QWEN3_4B), config.num_warps, capability)
    assert "mma.sync" in result.asm["ptx"]
    assert "cp.async" in result.asm["ptx"]


@pytest.mark.parametrize("shape", [QWEN3_4B, QWEN3_14B], ids=["4B", "14B"])
def test_hopper_decode(shape: AttentionShape) -> None:
    boxes = {
        name: f"tensordesc<bf16{list(box)},{gl.NVMMASharedLayout(128, 16, rank=2)!r}>"
        for name, box in choose_decode(1).boxes(shape).items()
    }
    for config in {choose_decode(sequences) for sequences in (1, 8, 256)}:
        assert config.hopper
        constants = config.constants(shape)
        options: Any = (config.num_warps, 90, config.max_registers)
        plain = compiled(attention_decode_hopper, constants, *options, **boxes)
        fused = compiled(qkv_attention_decode_hopper, {**constants, "EPS": 1e-6}, *options, **boxes)
        for kernel in (plain, fused):
            assert 2 * kernel.metadata.shared <= SHARED_BYTES[90], "two programs do not fit a multiprocessor"
            for instruction in ("wgmma.mma_async", "cp.async.bulk.tensor", "griddepcontrol.wait"):
                assert instruction in kernel.asm["ptx"]


@pytest.mark.parametrize("capability", [80, 89, 90, 120])
def test_prefill(capability: int) -> None:
    config: Prefill = choose_prefill(16, target=f"sm_{capability}")
    compiled(attention_prefill_plan, config.plan_constants(QWEN3_4B), 8, capability)
    compiled(attention_prefill, config.constants(QWEN3_4B), config.num_warps, capability)


@pytest.mark.parametrize("shape", [QWEN3_4B, QWEN3_14B], ids=["4B", "14B"])
def test_hopper_prefill(shape: AttentionShape) -> None:
    config = choose_prefill(8192)
    assert config.hopper
    boxes = {
        name: f"tensordesc<bf16{list(box)},{gl.NVMMASharedLayout(128, 16, rank=len(box))!r}>"
        for name, box in config.boxes(shape).items()
    }
    text = compiled(attention_prefill_hopper, config.constants(shape), config.num_warps, 90, **boxes).asm["ptx"]
    for instruction in ("wgmma.mma_async", "cp.async.bulk.tensor", "setmaxnreg", "griddepcontrol.wait"):
        assert instruction in text


def test_sampling() -> None:
    first, second = Sample().constants(VOCABULARY)
    compiled(sample_chunks, first, 4, 90)
    compiled(sample, second, Sample().num_warps, 90, candidates_ptr="*fp32")
    first, second = LogProbs().constants(VOCABULARY)
    compiled(log_probs_chunks, first, 4, 90)
    compiled(log_probs, second, LogProbs().num_warps, 90, candidates_ptr="*i64")
