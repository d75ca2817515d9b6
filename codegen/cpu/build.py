"""Kernels → one shared library: TVM lowers each to an object through LLVM, the C compiler links them.

The library needs two small files of TVM's at run time, which are copied beside it; no Python of TVM's is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.target import Target

from oi.codegen.cpu.simd import Kernel
from oi.codegen.errors import CompileError
from oi.codegen.target import Library

__all__ = ["build_library", "compile_module", "support_files"]

LIBRARY = "kernels.so"


def build_library(
    kernels: Iterable[Kernel], mcpu: str, folder: Path, on_kernel: Callable[[str], None] = lambda name: None
) -> Library:
    """Write the kernels' library and its support files to `folder`. Raises CompileError."""
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        for name, path in _compile_all(list(kernels), mcpu, Path(scratch)):
            objects.append(path)
            on_kernel(name)
        _link(objects, folder / LIBRARY)
    support = support_files()
    for path in support:
        shutil.copy(path, folder / path.name)
    return Library(LIBRARY, tuple(path.name for path in support))


def support_files() -> tuple[Path, ...]:
    """TVM's run-time libraries, in the order in which they must be loaded."""
    ffi = Path(tvm_ffi.__file__).parent / "lib" / "libtvm_ffi.so"
    runtime = Path(tvm.__file__).parent / "lib" / "libtvm_runtime.so"
    return ffi, runtime


def compile_module(kernel: Kernel, mcpu: str) -> Any:
    """One kernel as a TVM module; its `inspect_source("s")` is the assembly."""
    target = Target({"kind": "llvm", "mcpu": mcpu})
    module = tirx.transform.BindTarget(target.with_host(target))(tvm.IRModule({kernel.name: kernel.prim_func()}))
    return tvm.get_global_func("target.build.llvm")(tvm.transform.Sequential(_lowering())(module), target)


def _lowering() -> list[Any]:
    """From TensorIR to what LLVM code generation takes.

    TVM's default pipeline schedules blocks, which our kernels, written as loops and vectors, do not have; it
    would take most of the build's time. Simplifying must follow flattening: it makes vector indices ramps again,
    without which every vector is loaded and stored lane by lane.
    """
    passes = tirx.transform
    return [
        passes.FlattenBuffer(),
        passes.StmtSimplify(),
        passes.BF16ComputeLegalize(),
        passes.VectorizeLoop(True),
        passes.AnnotateEntryFunc(),
        passes.SplitHostDevice(),
        passes.MakePackedAPI(),
        passes.BF16StorageLegalize(),
        passes.LowerTVMBuiltin(),
        passes.LowerIntrin(),
    ]


def _compile_all(kernels: list[Kernel], mcpu: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """LLVM runs outside of Python's lock, so threads share the machine well."""

    def compile_one(item: tuple[int, Kernel]) -> tuple[str, Path]:
        number, kernel = item
        path = folder / f"{number}.o"
        compile_module(kernel, mcpu).write_to_file(str(path), "o")
        return kernel.name, path

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(compile_one, enumerate(kernels))


def _link(objects: list[Path], library: Path) -> None:
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise CompileError("no C compiler to link the kernels with: install gcc or clang, or name one in CC")
    command = [compiler, "-shared", "-Wl,-s", "-o", str(library), *map(str, objects), "-lm"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise CompileError(f"{compiler} could not link the kernels: {result.stderr.strip()}")
