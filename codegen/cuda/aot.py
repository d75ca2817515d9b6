"""Triton kernels → cubins, with neither GPU nor torch, on all cores."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Literal

from triton import compile as compile_kernel
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from oi.codegen.cuda.arch import Arch
from oi.codegen.cuda.source import KernelSource
from oi.codegen.errors import CompileError

__all__ = ["Cubin", "TensorMapBox", "compile_all", "compile_one"]

_POINTERS_ARE_ALIGNED = [["tt.divisibility", 16]]  # the arena by 64 bytes, weights by 256, the driver's by 256
_SWIZZLES: tuple[Literal[0], Literal[32], Literal[64], Literal[128]] = (0, 32, 64, 128)  # by CUtensorMapSwizzle


@dataclass(frozen=True)
class TensorMapBox:
    """What a tensor map must be made with, as the kernel was compiled for it."""

    box: tuple[int, ...]
    swizzle: Literal[0, 32, 64, 128]
    """Bytes."""


@dataclass(frozen=True)
class Cubin:
    image: bytes
    entry: str
    threads: int
    shared_bytes: int
    waits: bool
    """It waits for the kernel ahead of it, so that it may be launched before that has ended."""
    boxes: tuple[TensorMapBox, ...]
    """Of its tensor descriptors, in order."""
    ptx: str
    """What it was assembled from, to be looked at."""


def compile_all(sources: Sequence[KernelSource], arch: Arch) -> Iterator[tuple[KernelSource, Cubin]]:
    """Compile on all cores; yield each as it is done. Triton's cache is used. Raises CompileError."""
    spawn = multiprocessing.get_context("spawn")
    workers = min(len(os.sched_getaffinity(0)), len(sources)) or 1
    with ProcessPoolExecutor(workers, spawn) as pool:
        pending = {pool.submit(compile_one, source, arch): source for source in sources}
        try:
            for done in as_completed(pending):
                yield pending[done], done.result()
        except BrokenProcessPool as e:
            raise CompileError(f"Triton ended its process while compiling for {arch.name}; see above") from e
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def compile_one(source: KernelSource, arch: Arch) -> Cubin:
    """Raises CompileError where Triton fails, or the kernel does not fit the architecture."""
    knobs.compilation.disable_line_info = True  # it would name this machine's folders
    try:
        compiled = compile_kernel(
            _ast(source),
            target=GPUTarget("cuda", arch.capability, 32),
            options={"num_warps": source.num_warps, "maxnreg": source.max_registers},
        )
    except Exception as e:
        raise CompileError(f"Triton cannot compile {source.symbol} for {arch.name}: {e}") from None
    metadata, ptx = compiled.metadata, compiled.asm["ptx"]
    if metadata.shared > arch.shared_bytes:
        raise CompileError(
            f"{source.symbol} needs {metadata.shared} bytes of shared memory, {arch.name} has {arch.shared_bytes}: "
            "choose a smaller launch in codegen/cuda/tuning"
        )
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        raise CompileError(f"{source.symbol} asks for scratch memory of Triton's, which the runtime does not give")
    return Cubin(
        image=compiled.asm["cubin"],
        entry=metadata.name,
        threads=32 * metadata.num_warps,
        shared_bytes=metadata.shared,
        waits="griddepcontrol.wait" in ptx,
        boxes=tuple(
            TensorMapBox(tuple(map(int, meta["block_size"])), _SWIZZLES[meta["swizzle"]])
            for meta in getattr(metadata, "tensordesc_meta", None) or ()
        ),
        ptx=ptx,
    )


def _ast(source: KernelSource) -> ASTSource:
    kernel = getattr(importlib.import_module(source.module), source.function)
    names = list(kernel.arg_names)
    types = {name: type if isinstance(type, str) else _descriptor(type) for name, type in source.parameters}
    return (GluonASTSource if kernel.is_gluon() else ASTSource)(
        kernel,
        {name: types.get(name, "constexpr") for name in names},
        {(names.index(name),): value for name, value in source.constants},
        {(names.index(name),): _POINTERS_ARE_ALIGNED for name, type in types.items() if type.startswith("*")},
    )


def _descriptor(box: tuple[int, ...]) -> str:
    layout = gl.NVMMASharedLayout.get_default_for(list(box), gl.bfloat16)
    return f"tensordesc<bf16{list(box)},{layout!r}>"
