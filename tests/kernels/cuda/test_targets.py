"""Every kernel of a model compiles for every architecture without a GPU, and fits its shared memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

import oi.models
from oi.codegen.cuda.aot import compile_all
from oi.codegen.cuda.arch import ARCHS
from oi.codegen.cuda.source import KernelSource, NodeSource
from oi.codegen.cuda.target import CudaTarget
from oi.codegen.lower import lower_module
from oi.codegen.pipeline import optimize
from oi.ir.types import DType
from oi.models.qwen3 import build, parse_config
from oi.runtime.manifest import Limits

TINY = json.loads(Path(oi.models.__path__[0], "tiny", "config.json").read_text())
BUNDLED = (8, 2, 64)
"""Query heads, KV heads, head dim."""
GROUPS_OF_FIVE = (10, 2, 128)
"""As in 14B: no power of two."""
LIMITS = Limits(max_tokens=300, max_sequences=2, max_edits=1024)


def kernels(config: dict[str, Any], arch: str, limits: Limits) -> set[KernelSource]:
    """What the target compiles for a model."""
    target = CudaTarget.of(arch, limits)
    module = target.specialize(optimize(build(parse_config(config), DType.BF16), lambda name, module: None))
    found: set[KernelSource] = set()
    for node in lower_module(module, target, limits).kernels.values():
        assert isinstance(node, NodeSource)
        found |= {call.kernel for call in (*node.prologue, *node.calls)}
    return found


def with_heads(q_heads: int, kv_heads: int, head_dim: int) -> dict[str, Any]:
    names = ("num_attention_heads", "num_key_value_heads", "head_dim")
    heads = dict(zip(names, (q_heads, kv_heads, head_dim), strict=True))
    return {**TINY, **heads, "num_hidden_layers": 1, "layer_types": ["full_attention"]}


@pytest.mark.parametrize("arch", ARCHS.values(), ids=lambda arch: arch.name)
def test_every_kernel_compiles(arch: Any) -> None:
    """`compile_all` refuses what does not fit."""
    other = kernels(with_heads(*GROUPS_OF_FIVE), arch.name, LIMITS)
    wanted = kernels(with_heads(*BUNDLED), arch.name, LIMITS) | {k for k in other if "gemm" not in k.function}
    waiting = {kernel.function for kernel in wanted}
    for kernel, cubin in compile_all(sorted(wanted, key=lambda kernel: kernel.symbol), arch):
        wanted.remove(kernel)
        assert cubin.image
        assert cubin.waits == (arch.dependent_launches and not kernel.function.endswith("_plan")), kernel
    assert not wanted
    assert waiting >= {"qkv_norm_rope_write", "sample", "log_probs", "greedy", "embedding"}
    if arch.name == "sm_90":
        assert {"attention_decode_hopper", "attention_prefill_hopper"} <= waiting
    else:
        assert {"gemm_portable", "attention_decode", "attention_prefill"} <= waiting
        assert not any("hopper" in name or name in ("gemm_skinny", "gemm_prefill") for name in waiting)
