"""Compiled kernels and recipes → the library's files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from oi.codegen.cuda.aot import Cubin, compile_all
from oi.codegen.cuda.arch import Arch
from oi.codegen.cuda.kernels.copy_words import copy_words
from oi.codegen.cuda.source import Argument, CallSource, KernelSource, NodeSource, TensorMap, call, integer, largest
from oi.codegen.target import Library
from oi.runtime.cuda_library import (
    Buckets,
    Call,
    CudaLibrary,
    Descriptor,
    Int,
    Kernel,
    Operand,
    Param,
    Recipe,
    WordCopy,
)

__all__ = ["LIBRARY", "build_library"]

LIBRARY, KERNELS = "library.json", "kernels"

_WORDS = 512
"""Copied by a program: 4 a thread."""


def build_library(
    nodes: Mapping[str, NodeSource], buckets: Buckets, arch: Arch, folder: Path, on_node: Callable[[str], None]
) -> Library:
    """Compile what the nodes (symbol → source) need and write it to `folder`. Raises CompileError."""
    word_copy = _word_copy()
    sources = list(dict.fromkeys([word_copy, *(source for node in nodes.values() for source in _kernels(node))]))
    names = _unique_names(sources)
    cubins: dict[KernelSource, Cubin] = {}
    waiting = {symbol: set(_kernels(node)) for symbol, node in nodes.items()}
    (folder / KERNELS).mkdir()
    for source, cubin in compile_all(sources, arch):
        cubins[source] = cubin
        (folder / _file(names[source])).write_bytes(cubin.image)
        for symbol in [symbol for symbol, missing in waiting.items() if not missing - cubins.keys()]:
            del waiting[symbol]
            on_node(symbol)
    untuned = sorted({node.untuned for node in nodes.values() if node.untuned is not None})
    library = CudaLibrary(
        buckets=buckets,
        word_copy=WordCopy(names[word_copy], _WORDS),
        kernels={names[source]: _kernel(names[source], cubins[source]) for source in sources},
        recipes={symbol: _recipe(node, names, cubins) for symbol, node in nodes.items()},
        scratch=largest(need for node in nodes.values() for need in node.scratch if need[1]),
        defaults=[f"{shape} of {rows} rows" for shape, rows in untuned],
    )
    (folder / LIBRARY).write_bytes(msgspec.json.format(msgspec.json.encode(library)) + b"\n")
    return Library(LIBRARY, notes=_notes(untuned, arch))


def _notes(untuned: Iterable[tuple[str, int]], arch: Arch) -> tuple[str, ...]:
    """A line for each shape of a product that nobody measured."""
    by_shape: dict[str, list[int]] = {}
    for shape, rows in untuned:
        by_shape.setdefault(shape, []).append(rows)
    return tuple(
        f"{shape} runs on a default launch at {len(rows)} row counts of {rows[0]} to {rows[-1]}: "
        f"gemm_{arch.name}.json has none; on a GPU, codegen/cuda/tuning/tune_gemm.py measures them"
        for shape, rows in by_shape.items()
    )


def _word_copy() -> KernelSource:
    word = Argument("*i32", Operand(0))
    given = {"to_ptr": word, "source_ptr": word, "words": integer(0)}
    return call(copy_words, (1,), given, {"BLOCK": _WORDS}, num_warps=4, pdl=False).kernel


def _kernels(node: NodeSource) -> Iterable[KernelSource]:
    return (call.kernel for call in (*node.prologue, *node.calls))


def _unique_names(sources: Iterable[KernelSource]) -> dict[KernelSource, str]:
    names: dict[KernelSource, str] = {}
    taken: set[str] = set()
    for source in sources:
        name, count = source.symbol, 1
        while name in taken:
            count += 1
            name = f"{source.symbol}-{count}"
        taken.add(name)
        names[source] = name
    return names


def _file(name: str) -> str:
    return f"{KERNELS}/{name}.cubin"


def _kernel(name: str, cubin: Cubin) -> Kernel:
    return Kernel(
        file=_file(name),
        entry=cubin.entry,
        threads=cubin.threads,
        shared_bytes=cubin.shared_bytes,
        pdl=cubin.waits,
    )


def _recipe(node: NodeSource, names: Mapping[KernelSource, str], cubins: Mapping[KernelSource, Cubin]) -> Recipe:
    def made(calls: Iterable[CallSource]) -> list[Call]:
        return [Call(names[c.kernel], c.grid, _params(c, cubins[c.kernel])) for c in calls]

    return Recipe(calls=made(node.calls), prologue=made(node.prologue))


def _params(call: CallSource, cubin: Cubin) -> list[Param]:
    """With the Ints that follow each descriptor: its shape (i32) and strides (i64)."""
    params: list[Param] = []
    boxes = iter(cubin.boxes)
    for param in call.params:
        if not isinstance(param, TensorMap):
            params.append(param)
            continue
        compiled = next(boxes)
        params.append(
            Descriptor(
                arg=param.arg,
                shape=list(param.shape),
                box=list(compiled.box),
                swizzle=compiled.swizzle,
                pages=param.pages,
            )
        )
        params += [Int(size) for size in param.shape]
        params += [Int(stride, bits=64) for stride in _dense_strides(param.shape)]
    return params


def _dense_strides(shape: tuple[int, ...]) -> list[int]:
    """In elements, of a row-major array."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return strides
