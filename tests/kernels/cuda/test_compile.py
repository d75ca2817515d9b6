"""Every kernel of a model compiles for every architecture without a GPU, to the instructions that it is about."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

import oi.models
from bench.make_checkpoint import SIZES, config_of
from oi.codegen.cuda.aot import Cubin, compile_all
from oi.codegen.cuda.arch import ARCHS, Arch
from oi.codegen.cuda.source import KernelSource, NodeSource
from oi.codegen.cuda.target import CudaTarget
from oi.codegen.lower import lower_module
from oi.codegen.pipeline import optimize
from oi.ir.types import DType
from oi.models.qwen3 import build, parse_config
from oi.runtime.manifest import Limits

TINY = json.loads(Path(oi.models.__path__[0], "tiny", "config.json").read_text())
QWEN3_4B = config_of(SIZES["4B"], SIZES["4B"].layers)
LIMITS = Limits(max_tokens=300, max_sequences=2, max_edits=1024)
LARGE = Limits(max_tokens=4096, max_sequences=256, max_edits=1 << 18)
INSTRUCTIONS = {
    "attention_decode": ("mma.sync", "cp.async"),
    "attention_prefill": ("mma", "cp.async"),
    "gemm_portable": ("mma", "cp.async.cg.shared.global"),
    "attention_decode_hopper": ("wgmma.mma_async", "cp.async.bulk.tensor"),
    "qkv_attention_decode_hopper": ("wgmma.mma_async", "cp.async.bulk.tensor"),
    "attention_prefill_few_hopper": ("wgmma.mma_async", "cp.async.bulk.tensor"),
    "attention_prefill_hopper": ("wgmma.mma_async", "cp.async.bulk.tensor", "setmaxnreg"),
    "gemm_skinny": ("wgmma.mma_async", "cp.async.bulk.tensor"),
    "gemm_even": ("wgmma.mma_async", "cp.async.bulk.tensor"),
    "gemm_prefill": ("wgmma.mma_async", "cp.async.bulk.tensor"),
    "gemv": ("ld.global.L1::evict_first",),
}
OF_HOPPER = {name for name in INSTRUCTIONS if name.endswith("_hopper")} | {"gemm_skinny", "gemm_even", "gemm_prefill"}


def kernels(config: dict[str, Any], arch: Arch, limits: Limits) -> set[KernelSource]:
    """What the target compiles for a model."""
    target = CudaTarget.of(arch.name, limits)
    module = target.specialize(optimize(build(parse_config(config), DType.BF16), lambda name, module: None))
    found: set[KernelSource] = set()
    for node in lower_module(module, target, limits).kernels.values():
        assert isinstance(node, NodeSource)
        found |= {call.kernel for call in (*node.prologue, *node.calls)}
    return found


def compiled(sources: set[KernelSource], arch: Arch) -> dict[KernelSource, Cubin]:
    """`compile_all` refuses what does not fit."""
    found = dict(compile_all(sorted(sources, key=lambda source: source.symbol), arch))
    assert found.keys() == sources
    for source, cubin in found.items():
        assert cubin.image
        assert cubin.waits == (arch.dependent_launches and not source.function.endswith("_plan")), source
        for instruction in INSTRUCTIONS.get(source.function, ()):
            assert instruction in cubin.ptx, source
        assert "cp.async.ca" not in cubin.ptx, "copies of fewer than 16 bytes"
    return found


@pytest.mark.parametrize("arch", ARCHS.values(), ids=lambda arch: arch.name)
def test_every_kernel_of_small_models(arch: Arch) -> None:
    """The bundled one, and heads in groups of five as in 14B: no power of two."""
    heads = {"num_attention_heads": 10, "num_key_value_heads": 2, "head_dim": 128}
    other = {**TINY, **heads, "num_hidden_layers": 1, "layer_types": ["full_attention"]}
    wanted = kernels(TINY, arch, LIMITS) | {k for k in kernels(other, arch, LIMITS) if "gemm" not in k.function}
    functions = {source.function for source in compiled(wanted, arch)}
    assert functions >= {"qkv_norm_rope_write", "sample", "log_probs", "greedy", "embedding"}
    if arch.name == "sm_90":
        assert {name for name in OF_HOPPER if name.endswith("_hopper")} | {"attention_prefill_add"} <= functions
    else:
        assert {"gemm_portable", "attention_decode", "attention_prefill"} <= functions
        assert not functions & OF_HOPPER


@pytest.mark.slow
def test_what_a_server_of_4b_runs_on_hopper() -> None:
    arch = ARCHS["sm_90"]
    found = compiled(kernels(QWEN3_4B, arch, LARGE), arch)
    assert {source.function for source in found} >= {"gemv", *OF_HOPPER} - {"attention_decode_hopper"}
    for source, cubin in found.items():
        if source.function == "qkv_attention_decode_hopper":
            assert 2 * cubin.shared_bytes <= arch.shared_bytes, "two programs do not fit a multiprocessor"
        if source.function == "gemv":
            _check_loads_before_the_wait(source, cubin.ptx)


def _check_loads_before_the_wait(source: KernelSource, ptx: str) -> None:
    """As many as the launch says, each of 16 bytes of a thread."""
    constants = dict(source.constants)
    before = ptx[: ptx.index("griddepcontrol.wait")]
    loads = re.findall(r"ld\.global\.L1::evict_first\.\S*v4\.b32", before)
    assert len(loads) == constants["DEPTH"] * constants["ROWS"] * (2 if constants["SWIGLU"] else 1), source
