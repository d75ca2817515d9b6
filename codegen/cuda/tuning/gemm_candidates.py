"""What is worth trying for a product: launches for `tune_gemm`, and the products of the models that it tunes for."""

from __future__ import annotations

from dataclasses import replace

from oi.codegen.cuda.kernels.gemm import Even, Gemm, Gemv, Portable, Prefill, Skinny, block_m
from oi.codegen.cuda.tuning.gemm_launch import Config

__all__ = ["LAYERS", "LM_HEAD", "QWEN3", "candidates"]

LAYERS = {"4B": 36, "8B": 36, "0.6B": 28}
QWEN3 = {
    "4B": {"qkv": Gemm(6144, 2560), "o": Gemm(2560, 4096), "swiglu": Gemm(9728, 2560, True), "down": Gemm(2560, 9728)},
    "8B": {
        "qkv": Gemm(6144, 4096),
        "o": Gemm(4096, 4096),
        "swiglu": Gemm(12288, 4096, True),
        "down": Gemm(4096, 12288),
    },
    "0.6B": {
        "qkv": Gemm(4096, 1024),
        "o": Gemm(1024, 2048),
        "swiglu": Gemm(3072, 1024, True),
        "down": Gemm(1024, 3072),
    },
}
LM_HEAD = {name: Gemm(151936, k, f32=True) for name, k in (("4B", 2560), ("8B", 4096), ("0.6B", 1024))}


def candidates(gemm: Gemm, rows: int) -> list[Config]:
    """For x [rows, k]."""
    found: list[Config] = []
    if rows <= 256:
        found += [*_gemv(gemm, rows), *_skinny(gemm, rows), *_even(gemm, rows), *_portable(gemm, rows)]
    if rows > 128 and not gemm.f32:
        found += _prefill(gemm, rows)
    return found


def _gemv(gemm: Gemm, rows: int) -> list[Gemv]:
    depths = (1, 2, 3, 4, 5, 8) if rows == 1 else (2, 3) if rows <= 4 else ()
    return [Gemv(2, depth, 2) for depth in depths if depth <= gemm.k // 512]


def _skinny(gemm: Gemm, rows: int) -> list[Skinny]:
    """Rings of half an SM and of a whole one; one program for each multiprocessor, or as many as cut tiles evenly."""
    found = []
    parts = 2 if gemm.swiglu else 1
    sums = parts * block_m(rows) // 2  # registers of a thread
    for block_n, block_k, room in ((64, 128, 107), (64, 64, 107), (64, 128, 218), (64, 256, 218), (128, 64, 218)):
        stage = Skinny(block_n, block_k, 1, 1).shared_bytes(gemm, rows)
        stages = min((room << 10) // stage, 10)
        if stages < 2 or sums > 128 or (block_n == 128) != (sums == 128 and parts == 1 and room == 218):
            continue
        if (rows <= 32 and block_k == 64) or gemm.k % block_k:
            continue
        tiles = -(-gemm.n // block_n)
        even = [tiles * s for s in range(1, 7) if 90 <= tiles * s <= 152]
        found += [Skinny(block_n, block_k, stages, p) for p in (132, *even)]
    return list(dict.fromkeys(found))


def _even(gemm: Gemm, rows: int) -> list[Even]:
    """Rings of a whole SM, one program for each; where whole tiles come out even, `gemm_skinny` does the same."""
    found = []
    for block_k in (128, 256) if rows <= 32 else (64, 128):
        stages = min((218 << 10) // Even(64, block_k, 1, 1).shared_bytes(gemm, rows), 10)
        config = Even(64, block_k, stages, 132)
        fits = stages >= 2 and (2 if gemm.swiglu else 1) * block_m(rows) <= 256 and gemm.k % block_k == 0
        if rows > 8 and not gemm.f32 and fits and config.splits(gemm) > 1:
            found.append(config)
    return found


def _portable(gemm: Gemm, rows: int) -> list[Portable]:
    """Tiles of all rows or half of them, their sums split to fill a GPU of 132 multiprocessors once or nearly twice."""
    if gemm.f32 or not 64 <= rows <= 512:
        return []
    found = []
    for block_m_, block_n, stages in ((64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 128, 4)):
        if not min(rows // 2, 128) <= block_m_ <= rows:
            continue
        columns = block_n // 2 if gemm.swiglu else block_n
        tiles = Portable(block_m_, columns, 64, stages).tiles(gemm, rows)
        for splits in {max(1, 132 // tiles), max(1, 264 // tiles)}:
            if tiles * splits <= 264 and splits <= 8:
                found.append(Portable(block_m_, columns, 64, stages, splits))
    return found


def _prefill(gemm: Gemm, rows: int) -> list[Prefill]:
    narrow = tuple((128, 128, n1) for n1 in (128, 64, 32, 0))
    linear = (*narrow, (128, 256, 0), (256, 128, 32), *(((128, 64, 0),) if rows <= 512 else ()))
    tiles = ((128, 128, 128), (128, 64, 64)) if gemm.swiglu else linear
    found = [Prefill.of_tile(gemm, *tile) for tile in tiles]
    groups = (16,) if rows >= 2048 else ()
    return [*found, *(replace(config, group_m=group) for config in found for group in groups)]
