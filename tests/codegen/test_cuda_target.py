"""What the CUDA target makes of graphs, before anything is compiled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("triton")

from oi.codegen.cuda.arch import ARCHS
from oi.codegen.cuda.source import NodeSource, call, integer
from oi.codegen.cuda.target import CudaTarget
from oi.codegen.errors import CompileError
from oi.codegen.lower import Lowered, lower_module
from oi.codegen.model_file import load_model_file
from oi.codegen.pipeline import optimize
from oi.codegen.target import MissingKernel
from oi.ir.types import DType
from oi.runtime.artifact_path import installed_model_file
from oi.runtime.manifest import Limits
from oi.runtime.target import ARCHITECTURES

CONFIG = json.loads((Path(__file__).parents[2] / "models" / "tiny" / "config.json").read_text())
LIMITS = Limits(512, 32, 1000)
LARGE = {"hidden_size": 5120, "intermediate_size": 25600, "num_attention_heads": 64, "num_key_value_heads": 8}


def lowered(arch: str, changes: Mapping[str, object] = {}, limits: Limits = LIMITS) -> Lowered:
    target = CudaTarget.of(arch, limits)
    model_file = load_model_file(installed_model_file("qwen3.py"))
    module = model_file.build(model_file.parse_config({**CONFIG, **changes}), target.activations)
    return lower_module(target.specialize(optimize(module)), target, limits)


@cache
def on_hopper() -> Lowered:
    return lowered("sm_90")


@pytest.mark.parametrize("changes", [{}, {**LARGE, "head_dim": 128}], ids=["tiny", "32B"])
@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_has_all_kernels(arch: str, changes: Mapping[str, object]) -> None:
    made = lowered(arch, changes)
    assert set(made.programs) == {"forward", "decode", "greedy", "sample", "log_probs"}
    sources = [source for source in made.kernels.values() if isinstance(source, NodeSource)]
    assert len(sources) == len(made.kernels)
    kernels = {c.kernel for source in sources for c in (*source.prologue, *source.calls)}
    constants = [dict(kernel.constants) for kernel in kernels]
    assert {c["PDL"] for c in constants if "PDL" in c} == {ARCHS[arch].dependent_launches}
    ends = ("_hopper", "gemm_skinny", "gemm_even", "gemm_prefill")
    hopper = {kernel.function for kernel in kernels if kernel.module.endswith(ends)}
    assert bool(hopper) == (arch == "sm_90")


def test_variants_are_the_buckets() -> None:
    bounds = {
        (launch.op, launch.rows): tuple(v.max_rows for v in launch.variants)
        for program in ("forward", "greedy")
        for launch in on_hopper().programs[program].launches
    }
    assert bounds["greedy", "R"] == (1, 2, 4, 8, 16, None)
    assert bounds["attention", "T"] == (16, 32, 64, 128, 192, 256, 384, None)
    assert bounds["linear", "T"] == (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, None)
    decode = {launch.op: launch.variants for launch in on_hopper().programs["decode"].launches}
    assert [v.max_rows for v in decode["attention"]] == [1, 2, 4, 8, 16, None]


def test_attention_of_decode_is_a_kernel_of_its_own() -> None:
    programs = on_hopper().programs
    names = {
        program: {
            v.kernel for launch in programs[program].launches if launch.op == "attention" for v in launch.variants
        }
        for program in ("decode", "forward")
    }
    assert not names["decode"] & names["forward"]
    for symbol in names["decode"]:
        source = on_hopper().kernels[symbol]
        assert isinstance(source, NodeSource)
        assert (len(source.calls), len(source.prologue)) == (1, 1)
    for symbol in names["forward"]:
        source = on_hopper().kernels[symbol]
        assert isinstance(source, NodeSource)
        assert (len(source.calls), len(source.prologue)) in ((2, 2), (3, 2))


def test_prefill_attention_of_few_tokens_has_a_launch_of_its_own() -> None:
    few = ["attention_prefill_few_hopper", "attention_prefill_add"]
    launches = [launch for launch in on_hopper().programs["forward"].launches if launch.op == "attention"]
    for variant in (variant for launch in launches for variant in launch.variants):
        source = on_hopper().kernels[variant.kernel]
        assert isinstance(source, NodeSource)
        wanted = few if variant.max_rows in (16, 32) else ["attention_prefill_hopper"]
        assert [call.kernel.function for call in source.calls][1:] == wanted


def test_hopper_takes_qkv_norm_rope_write_into_decode() -> None:
    wide = {"head_dim": 128}
    for arch, changes, fused in (("sm_90", wide, True), ("sm_90", {}, False), ("sm_80", wide, False)):
        programs = lowered(arch, changes).programs
        ops = {launch.op for launch in programs["decode"].launches}
        assert ("qkv_attention" in ops) == fused
        assert ("attention" in ops) == ("qkv_norm_rope_write" in ops) == (not fused)
        assert "qkv_attention" not in {launch.op for launch in programs["forward"].launches}


def test_layers_share_their_kernels() -> None:
    shallow, deep = (lowered("sm_90", {"num_hidden_layers": n, "layer_types": ["full_attention"] * n}) for n in (3, 9))
    assert len(shallow.kernels) == len(deep.kernels)


def test_weights_that_are_read_as_one_follow_each_other() -> None:
    buffers = on_hopper().programs["forward"].buffers
    for group in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        for first, second in pairwise(buffers[f"layers.1.{name}"] for name in group):
            rows, columns = (d for d in first.shape if isinstance(d, int))
            assert second.offset == first.offset + 2 * rows * columns


def test_only_bf16_weights_are_taken() -> None:
    with pytest.raises(MissingKernel, match="must be bf16 there: convert the checkpoint, or choose --target cpu"):
        lowered("sm_90", {"dtype": "float32"})


@pytest.mark.parametrize("dim", [8, 48, 256])
def test_head_sizes_without_a_kernel_are_named(dim: int) -> None:
    with pytest.raises(MissingKernel, match="16, 32, 64 or 128 columns there; --target cpu"):
        lowered("sm_90", {"head_dim": dim})


def test_so_are_groups_of_heads() -> None:
    with pytest.raises(MissingKernel, match="at most 16 query heads may share a KV head"):
        lowered("sm_80", {"num_attention_heads": 17, "num_key_value_heads": 1})


def test_hopper_kernels_take_heads_of_64_columns_and_more() -> None:
    for dim in (16, 32, 64):
        sources = lowered("sm_90", {"head_dim": dim}).kernels.values()
        names = {c.kernel.function for source in sources if isinstance(source, NodeSource) for c in source.calls}
        assert any(name.endswith("_hopper") for name in names) == (dim == 64)


def test_the_runtime_knows_the_architectures() -> None:
    assert tuple(ARCHS) == ARCHITECTURES


@pytest.mark.parametrize(
    ("arch", "limits", "message"),
    [
        ("sm_75", LIMITS, "choose from sm_80, sm_89, sm_90, sm_120"),
        ("sm_90", Limits(4096, 257, 1000), "at most 256 sequences"),
        ("sm_90", Limits(16, 32, 1000), "16 tokens cannot advance 32 sequences"),
    ],
)
def test_errors_say_the_mend(arch: str, limits: Limits, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        CudaTarget.of(arch, limits)


def test_a_call_must_name_all_parameters() -> None:
    from oi.codegen.cuda.kernels.rms_norm import rms_norm

    with pytest.raises(TypeError, match="takes"):
        call(rms_norm, (1,), {"x_ptr": integer(1)}, {"H": 8}, num_warps=1, pdl=False)


def test_activations_are_bf16() -> None:
    assert CudaTarget.of("sm_90", LIMITS).activations is DType.BF16
