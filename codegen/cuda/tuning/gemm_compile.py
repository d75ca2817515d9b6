"""Compile GEMM launches on all cores before they are timed, and find those that never end."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Sequence
from multiprocessing.queues import SimpleQueue

import torch

from oi.codegen.cuda.kernels.gemm import Even, Gemm, Gemv, Skinny, block_m
from oi.codegen.cuda.tuning.gemm_launch import Config, Scratch, launch
from oi.codegen.cuda.tuning.gemm_timing import dtype_of

__all__ = ["Item", "compile_all", "kernel_key", "unique"]

Item = tuple[Gemm, Config, int]
"""A product, a launch of it, and the rows of x."""


def _compile(work: Sequence[Item], done: SimpleQueue[Item]) -> None:
    scratch = Scratch()
    for gemm, config, rows in work:
        try:
            x = torch.zeros(rows, gemm.k, dtype=torch.bfloat16, device="cuda")
            w = torch.zeros(gemm.weight_rows, gemm.k, dtype=torch.bfloat16, device="cuda")
            y = torch.zeros(rows, gemm.n, dtype=dtype_of(gemm), device="cuda")
            launch(gemm, config, x, w, y, scratch)
            torch.cuda.synchronize()
            done.put((gemm, config, rows))
        except Exception as error:
            print("cannot launch", gemm, config, rows, repr(error)[:300], flush=True)


def compile_all(work: Sequence[Item], processes: int, seconds: float) -> set[Item]:
    """Fill Triton's cache on disk and launch each once; those that ended within `seconds`.

    Must run before this process touches the GPU.
    """
    context = multiprocessing.get_context("fork")
    done: SimpleQueue[Item] = context.SimpleQueue()
    children = [
        context.Process(target=_compile, args=(work[i::processes], done), daemon=True) for i in range(processes)
    ]
    for child in children:
        child.start()
    end = time.monotonic() + seconds
    found: set[Item] = set()
    while len(found) < len(work) and time.monotonic() < end and any(c.is_alive() for c in children):
        while not done.empty():
            found.add(done.get())
        time.sleep(0.1)
    while not done.empty():
        found.add(done.get())
    for child in children:
        child.kill()
    for item in work:
        if item not in found:
            print("never ended:", *item, flush=True)
    return found


def unique(work: Iterable[Item]) -> list[Item]:
    """One of each that compile to the same kernel."""
    found = {}
    for gemm, config, rows in work:
        found[kernel_key((gemm, config, rows))] = (gemm, config, rows)
    return list(found.values())


def kernel_key(item: Item) -> Item:
    """Equal for what compiles to the same kernel."""
    gemm, config, rows = item
    match config:
        case Skinny() | Even():
            return gemm, config, block_m(rows)
        case Gemv():
            return item
        case _:
            return gemm, config, 0
