"""NVIDIA GPUs as a target: which kernels compute a node for each bucket of rows, and how they become a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

from oi.codegen.cuda.arch import Arch, find_arch
from oi.codegen.cuda.buckets import buckets_of
from oi.codegen.cuda.library import build_library
from oi.codegen.cuda.lower_attention import is_decode, lower_attention, takes_qkv
from oi.codegen.cuda.lower_gemm import gemm_of, lower_gemm, packed_weights
from oi.codegen.cuda.lower_rows import lower_rows
from oi.codegen.cuda.lower_sampling import lower_sampling
from oi.codegen.cuda.source import NodeSource
from oi.codegen.passes.fuse_qkv_attention import fuse_qkv_attention
from oi.codegen.passes.specialize_decode import specialize_decode
from oi.codegen.target import KernelVariant, Library, Lowering, MissingKernel
from oi.ir import ops
from oi.ir.graph import Module, Node
from oi.ir.types import DType, Sym
from oi.runtime import manifest
from oi.runtime.cuda_library import Buckets
from oi.runtime.manifest import Limits

__all__ = ["CudaTarget"]

_OF_F32 = (ops.RopeAngles, ops.Greedy, ops.Sample, ops.LogProbs)


@dataclass(frozen=True)
class CudaTarget:
    """Kernels in Triton, compiled to cubins. Activations and the KV cache are bf16, logits float32."""

    arch: Arch
    limits: Limits
    buckets: Buckets

    @classmethod
    def of(cls, arch: str, limits: Limits) -> CudaTarget:
        """For an architecture like "sm_90". Raises CompileError where there are no kernels for it, or the limits."""
        return cls(find_arch(arch), limits, buckets_of(limits))

    @property
    def activations(self) -> DType:
        return DType.BF16

    def specialize(self, module: Module) -> Module:
        decode = specialize_decode(module.graphs["forward"])
        if takes_qkv(decode, self.buckets.decode_rows, self.arch):
            decode = fuse_qkv_attention(decode)
        return Module({**module.graphs, "decode": decode})

    def lower(self, node: Node) -> Lowering:
        self._check_dtypes(node)
        rows, sizes = self._sizes(node)
        kind = _kind(node)
        variants = [KernelVariant(f"{kind}_{size}", size, self._source(node, size)) for size in sizes]
        variants[-1] = replace(variants[-1], max_rows=None)
        layer = getattr(node.op, "layer", None)
        return Lowering(rows, tuple(variants), () if layer is None else (layer,), packed_weights(node))

    def write_library(self, kernels: Mapping[str, object], folder: Path, on_kernel: Callable[[str], None]) -> Library:
        return build_library(cast("Mapping[str, NodeSource]", kernels), self.buckets, self.arch, folder, on_kernel)

    def manifest_target(self) -> manifest.Target:
        return manifest.CudaMachine(arch=self.arch.name)

    def versions(self) -> dict[str, str]:
        return {"triton": version("triton")}

    def _check_dtypes(self, node: Node) -> None:
        if isinstance(node.op, _OF_F32):
            return
        with_angles = isinstance(node.op, (ops.QkvNormRopeWrite, ops.QkvAttention))
        checked = node.operands[:3] if with_angles else node.operands
        if any(value.type.dtype is DType.F32 for value in checked):
            mend = "weights must be bf16 there: convert the checkpoint, or choose --target cpu"
            raise MissingKernel(node, self.arch.name, mend)

    def _sizes(self, node: Node) -> tuple[str, list[int]]:
        """The symbolic dim that a node's rows are, and the buckets of it.

        Programs `decode` and `forward` share the kernels of rows that mean the same in both.
        """
        dim = node.results[0].type.shape[0]
        assert isinstance(dim, Sym)
        gemm = gemm_of(node)
        if dim.name == "R":
            return "R", self.buckets.rows
        if is_decode(node) or (gemm is not None and gemm.f32):
            return "T", self.buckets.decode_rows
        if isinstance(node.op, ops.Attention):
            return "T", self.buckets.tokens
        return "T", sorted({*self.buckets.decode_rows, *self.buckets.tokens})

    def _source(self, node: Node, rows: int) -> NodeSource:
        source = (
            lower_gemm(node, rows, self.arch)
            or lower_attention(node, rows, self.limits.max_sequences, self.arch)
            or lower_rows(node, rows, self.arch)
            or lower_sampling(node, rows, self.limits.max_edits, self.arch)
        )
        if source is None:
            raise MissingKernel(
                node, self.arch.name, "add one under codegen/cuda/kernels and its launch in codegen/cuda/lower_*.py"
            )
        return source


def _kind(node: Node) -> str:
    """A name that determines a node's kernels but for the number of rows."""
    shapes = ["x".join(str(d) for d in v.type.shape if isinstance(d, int)) for v in node.operands]
    attributes = [getattr(node.op, field.name) for field in fields(node.op) if field.name != "layer"]
    values = [value.value if isinstance(value, DType) else str(value) for value in attributes]
    return "_".join([node.op.name, *filter(None, shapes), *values, *(["decode"] if is_decode(node) else [])])
