"""The launch of a product on a GPU of known kind: from the table that `tune_gemm` measured, else a stated default."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from oi.codegen.cuda.kernels.gemm import SHARED_BYTES, Even, Gemm, Gemv, Portable, Prefill, Skinny
from oi.codegen.errors import CompileError

__all__ = ["KERNELS", "MOST_F32_ROWS", "Choice", "choose_gemm", "default_gemm", "default_portable", "table_key"]

MOST_F32_ROWS = 256
"""Rows of a float32 result: they are columns of one tensor core instruction."""
_SKINNY_ROWS = 128
# Time of a tile (block_m, n0, n1) for its area, relative to the best, with all SMs busy (measured at M = 8192).
_TILES = {(128, 128, 128): 1.0, (128, 128, 64): 1.05, (256, 128, 32): 1.05, (128, 128, 32): 1.1, (128, 128, 0): 1.1}
_SWIGLU_TILES = {(128, 128, 128): 1.0, (128, 64, 64): 1.05}
# Portable launches (block_m, block_n, block_k, stages): two programs fit a multiprocessor with 100 KB of shared memory.
_PORTABLE = ((16, 64, 128, 3), (32, 64, 64, 4), (64, 64, 64, 4), (64, 128, 32, 5), (128, 128, 32, 4))
# What a multiprocessor does in the time of reading one byte out of L2, and what its start costs, on common GPUs.
_OPERATIONS_A_BYTE = 48
_START_BYTES = 32 << 10
_MOST_PARTIAL_BYTES = 32 << 20  # stays in L2


KERNELS: dict[str, type[Gemv | Skinny | Even | Prefill | Portable]] = {
    "gemv": Gemv,
    "skinny": Skinny,
    "even": Even,
    "prefill": Prefill,
    "portable": Portable,
}


@dataclass(frozen=True)
class Choice:
    """A launch, and whether it was measured for such a number of rows."""

    config: Gemv | Skinny | Even | Prefill | Portable
    tuned: bool


def table_key(gemm: Gemm) -> str:
    kind = "swiglu" if gemm.swiglu else "logits" if gemm.f32 else "linear"
    return f"{kind} {gemm.n}x{gemm.k}"


@functools.cache
def _table(target: str) -> dict[str, list[dict[str, Any]]]:
    path = resources.files("oi.codegen.cuda.tuning") / f"gemm_{target}.json"
    if not path.is_file():
        return {}
    configs: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())["configs"]
    return configs


def choose_gemm(gemm: Gemm, rows: int, *, target: str = "sm_90", multiprocessors: int = 132) -> Choice:
    """The launch for x [rows, k].

    Raises CompileError for more than MOST_F32_ROWS rows of a float32 result, and for a k that is no multiple of 8.
    """
    if gemm.f32 and rows > MOST_F32_ROWS:
        raise CompileError(
            f"float32 results have at most {MOST_F32_ROWS} rows, asked for {rows}: cut x into such pieces"
        )
    if gemm.k % 8:
        raise CompileError(
            f"products are over a multiple of 8 columns, which is what 16 bytes hold; this one is over {gemm.k}: "
            f"pad the checkpoint's weight with zeros"
        )
    for entry in _table(target).get(table_key(gemm), ()):
        first, last = entry["rows"]
        if first <= rows and (last is None or rows <= last):
            return Choice(KERNELS[entry["kernel"]](**entry["config"]), tuned=True)
    default = default_gemm if target == "sm_90" and _fits_hopper(gemm) else default_portable
    return Choice(default(gemm, rows, multiprocessors), tuned=False)


def _fits_hopper(gemm: Gemm) -> bool:
    """A step of k is 64 columns of a tensor descriptor, or 128, and Triton fails where there is but one.

    Fewer than 64 columns of y would leave tiles empty.
    """
    return gemm.k % 64 == 0 and gemm.k > 128 and gemm.n % 8 == 0 and gemm.n >= 64


def default_gemm(gemm: Gemm, rows: int, multiprocessors: int = 132) -> Gemv | Skinny | Prefill:
    """Where nothing was measured: what Qwen3-4B likes best, and for many rows what wastes least of the last wave."""
    if rows <= (4 if gemm.f32 else 2) and gemm.k % 512 == 0 and gemm.k > 512 and gemm.n % 2 == 0:
        return Gemv(rows=2, depth=2, num_warps=2)
    if rows > _SKINNY_ROWS and not gemm.f32:
        return _default_prefill(gemm, rows, multiprocessors)
    wide = rows > _SKINNY_ROWS
    block_n, block_k = 128 if wide else 64, 128 if not wide and gemm.k % 128 == 0 else 64
    stages = min(10, (SHARED_BYTES - (8 << 10)) // Skinny(block_n, block_k, 1, 1).shared_bytes(gemm, rows))
    tiles = -(-gemm.n // block_n)
    even = multiprocessors // tiles * tiles  # programs of which none works on two tiles
    return Skinny(block_n, block_k, stages, even if 3 * even > 2 * multiprocessors else multiprocessors)


def _default_prefill(gemm: Gemm, rows: int, multiprocessors: int) -> Prefill:
    tiles = _SWIGLU_TILES if gemm.swiglu else _TILES

    def cost(tile: tuple[int, int, int]) -> float:
        block_m, n0, n1 = tile
        count = -(-rows // block_m) * -(-gemm.n // (n0 if gemm.swiglu else n0 + n1))
        return -(-count // multiprocessors) * block_m * (n0 + n1) * tiles[tile]

    return Prefill.of_tile(gemm, *min(tiles, key=cost))


def default_portable(gemm: Gemm, rows: int, multiprocessors: int = 132) -> Portable:
    """The tile, and the parts of its sum, that keep the busiest multiprocessor busy for the least time.

    Time is counted in bytes out of L2. Not measured on any GPU.
    """

    def cost(config: Portable) -> int:
        all_steps = -(-gemm.k // config.block_k)
        steps = -(-all_steps // config.splits)
        operations = 2 * config.block_m * config.block_k * config.block_n * (2 if gemm.swiglu else 1)
        step = max(config.step_bytes(gemm), operations // _OPERATIONS_A_BYTE)
        adding = (1 + config.splits) * config.part_bytes(gemm) if config.splits > 1 else 0
        return -(-config.grid(gemm, rows) // multiprocessors) * (steps * step + adding + _START_BYTES)

    candidates = (
        Portable(block_m, block_n // 2 if gemm.swiglu else block_n, block_k, stages, splits)
        for block_m, block_n, block_k, stages in _PORTABLE
        for splits in range(1, min(8, -(-gemm.k // block_k)) + 1)
    )
    return min((c for c in candidates if c.partial_bytes(gemm, rows) <= _MOST_PARTIAL_BYTES), key=cost)
