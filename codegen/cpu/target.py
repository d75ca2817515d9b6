"""The CPU as a target: which kernel computes a node, and how the kernels become a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import tvm
import tvm_ffi
from tvm.target.codegen import llvm_version_major

from oi.codegen.cpu.build import build_library
from oi.codegen.cpu.kernels.add import add
from oi.codegen.cpu.kernels.add_rms_norm import add_rms_norm
from oi.codegen.cpu.kernels.attention import attention
from oi.codegen.cpu.kernels.embedding import embedding
from oi.codegen.cpu.kernels.greedy import greedy
from oi.codegen.cpu.kernels.kv_write import kv_write
from oi.codegen.cpu.kernels.linear import linear
from oi.codegen.cpu.kernels.linear_concat import linear_concat
from oi.codegen.cpu.kernels.log_probs import log_probs
from oi.codegen.cpu.kernels.mul import mul
from oi.codegen.cpu.kernels.qkv_norm_rope_write import qkv_norm_rope_write
from oi.codegen.cpu.kernels.rms_norm import rms_norm
from oi.codegen.cpu.kernels.rope import rope
from oi.codegen.cpu.kernels.rope_angles import rope_angles
from oi.codegen.cpu.kernels.sample import sample
from oi.codegen.cpu.kernels.select_rows import select_rows
from oi.codegen.cpu.kernels.silu import silu
from oi.codegen.cpu.kernels.skinny import row_variants
from oi.codegen.cpu.kernels.slice_columns import slice_columns
from oi.codegen.cpu.kernels.swiglu_linear import swiglu_linear
from oi.codegen.cpu.simd import Kernel, Simd
from oi.codegen.target import KernelVariant, Library, Lowering, MissingKernel
from oi.ir import ops
from oi.ir.graph import Module, Node, Value
from oi.ir.types import DType, Sym
from oi.runtime import manifest
from oi.runtime.host_cpu import HostCpu, host_cpu

__all__ = ["CpuTarget", "simd_of"]

_SIMD = {"x86-64-v4": Simd(lanes=16, registers=32), "x86-64-v3": Simd(lanes=8, registers=16)}
_BASELINE = {"x86_64": Simd(lanes=4, registers=16), "aarch64": Simd(lanes=4, registers=32)}


def simd_of(cpu: HostCpu) -> Simd:
    """The vector unit that LLVM may use on this CPU."""
    return _SIMD.get(cpu.mcpu) or _BASELINE.get(cpu.arch) or Simd(lanes=4, registers=16)


@dataclass(frozen=True)
class CpuTarget:
    """Kernels in TensorIR, compiled by LLVM. Activations, logits and the KV cache are float32."""

    cpu: HostCpu = field(default_factory=host_cpu)

    @property
    def activations(self) -> DType:
        return DType.F32

    def specialize(self, module: Module) -> Module:
        return module

    def lower(self, node: Node) -> Lowering:
        for value in node.results:
            if value.type.dtype is DType.BF16:
                raise MissingKernel(node, "cpu", "activations and the cache must be f32 there")
        kernels = _kernels(simd_of(self.cpu), node)
        rows = (node.operands if isinstance(node.op, ops.KvWrite) else node.results)[0].type.shape[0]
        assert isinstance(rows, Sym)
        variants = tuple(KernelVariant(kernel.name, bound, kernel) for bound, kernel in kernels)
        layer = getattr(node.op, "layer", None)
        return Lowering(rows.name, variants, () if layer is None else (layer,))

    def write_library(self, kernels: Mapping[str, object], folder: Path, on_kernel: Callable[[str], None]) -> Library:
        return build_library(cast("Mapping[str, Kernel]", kernels).values(), self.cpu.mcpu, folder, on_kernel)

    def manifest_target(self) -> manifest.Target:
        return manifest.CpuMachine(arch=self.cpu.arch, mcpu=self.cpu.mcpu, features=list(self.cpu.features))

    def versions(self) -> dict[str, str]:
        return {
            "tvm": str(tvm.__version__),
            "tvm_ffi": str(tvm_ffi.__version__),
            "llvm": str(llvm_version_major()),
        }


def _kernels(simd: Simd, node: Node) -> list[tuple[int | None, Kernel]]:
    """The variants of a node by rising row count, the last without a bound."""
    match node.op:
        case ops.Linear():
            n, k = _shape(node.operands[1])
            dtype = node.operands[1].type.dtype
            return [(rows, linear(simd, n, k, dtype, rows)) for rows in (*row_variants(simd), None)]
        case ops.LinearConcat():
            sizes, (_, k) = [_shape(w)[0] for w in node.operands[1:]], _shape(node.operands[1])
            dtype = node.operands[1].type.dtype
            return [(rows, linear_concat(simd, sizes, k, dtype, rows)) for rows in (*row_variants(simd), None)]
        case ops.SwigluLinear():
            n, k = _shape(node.operands[1])
            dtype = node.operands[1].type.dtype
            return [(rows, swiglu_linear(simd, n, k, dtype, rows)) for rows in (*row_variants(simd), None)]
        case _:
            return [(None, _kernel(simd, node))]


def _kernel(simd: Simd, node: Node) -> Kernel:
    op, operands = node.op, node.operands
    match op:
        case ops.Embedding():
            vocabulary, hidden = _shape(operands[1])
            return embedding(simd, vocabulary, hidden, operands[1].type.dtype)
        case ops.RmsNorm():
            return rms_norm(simd, _trailing(operands[0]), operands[1].type.dtype, op.eps)
        case ops.AddRmsNorm():
            return add_rms_norm(simd, _trailing(operands[0]), operands[2].type.dtype, op.eps)
        case ops.RopeAngles():
            (half,) = _shape(operands[1])
            return rope_angles(simd, half, op.scale)
        case ops.Rope():
            return rope(simd, *_trailing(operands[0]))
        case ops.KvWrite():
            layers, _, heads, page, size = _trailing(operands[3])
            return kv_write(simd, layers, heads, page, size)
        case ops.QkvNormRopeWrite():
            layers, _, heads, page, size = _trailing(operands[5])
            return qkv_norm_rope_write(simd, op.q_heads, layers, heads, page, size, operands[1].type.dtype, op.eps)
        case ops.Attention():
            layers, _, heads, page, size = _trailing(operands[1])
            return attention(simd, _trailing(operands[0])[0], layers, heads, page, size, op.scale)
        case ops.Add():
            return add(simd, _trailing(operands[0]))
        case ops.Mul():
            return mul(simd, _trailing(operands[0]))
        case ops.Silu():
            return silu(simd, _trailing(operands[0]))
        case ops.SelectRows():
            return select_rows(simd, *_trailing(operands[0]))
        case ops.SliceColumns():
            (width,) = _trailing(operands[0])
            return slice_columns(simd, width, op.start, op.size)
        case ops.Greedy():
            return greedy(simd, *_trailing(operands[0]))
        case ops.Sample():
            return sample(simd, *_trailing(operands[0]))
        case ops.LogProbs():
            (vocabulary,) = _trailing(operands[0])
            return log_probs(simd, vocabulary, op.k)
        case _:
            raise MissingKernel(node, "cpu", "add one under codegen/cpu/kernels and name it in codegen/cpu/target.py")


def _shape(value: Value) -> list[int]:
    """The dims of a tensor whose dims are all static."""
    return [d for d in value.type.shape if isinstance(d, int)]


def _trailing(value: Value) -> list[int]:
    """The static dims after the symbolic first one."""
    return [d for d in value.type.shape[1:] if isinstance(d, int)]
