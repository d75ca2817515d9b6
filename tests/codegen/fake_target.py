"""A target without a compiler: kernels are the reference semantics of their ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from oi.codegen.target import KernelVariant, Library, Lowering
from oi.ir.graph import Module, Node
from oi.ir.op import Op
from oi.ir.types import DType, Sym
from oi.runtime import manifest
from oi.runtime.host_cpu import host_cpu

__all__ = ["FakeTarget"]


@dataclass(frozen=True)
class FakeTarget:
    """Two variants of every kernel; their sources are the op, `layer` being passed by value."""

    activations: DType = DType.F32

    def specialize(self, module: Module) -> Module:
        return module

    def lower(self, node: Node) -> Lowering:
        op: Op = node.op
        scalars: tuple[int, ...] = ()
        if hasattr(op, "layer"):
            scalars, op = (op.layer,), replace(op, layer=0)
        symbol = f"{op}{[v.type for v in node.operands]}"
        rows = next(d.name for v in (*node.results, *node.operands) for d in v.type.shape if isinstance(d, Sym))
        few, many = KernelVariant(f"few {symbol}", 4, op), KernelVariant(f"many {symbol}", None, op)
        return Lowering(rows, (few, many), scalars)

    def write_library(self, kernels: Mapping[str, object], folder: Path, on_kernel: Callable[[str], None]) -> Library:
        for symbol in kernels:
            on_kernel(symbol)
        (folder / "kernels.so").write_text("\n".join(kernels))
        (folder / "support.so").write_text("support")
        return Library("kernels.so", ("support.so",))

    def manifest_target(self) -> manifest.Target:
        cpu = host_cpu()
        return manifest.CpuMachine(arch=cpu.arch, mcpu=cpu.mcpu, features=list(cpu.features))

    def versions(self) -> dict[str, str]:
        return {"fake": "1"}
