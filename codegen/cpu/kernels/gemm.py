"""Products of many rows with weights, from packed panels: what the linear kernels share for prefill.

x is packed once, `tile_rows` rows side by side:   packed[i, k, r] = x[i·tile_rows + r, k]
A thread widens and transposes a panel of weights: panel[k, c] = weight[column c, k], c over `vectors` · lanes
and runs all rows over it: a tile of accumulators stays in registers over the whole of k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oi.codegen.cpu.simd import (
    Buffer,
    Expr,
    Register,
    Simd,
    T,
    lanes_of,
    load,
    scratch,
    splat,
    store,
    transpose,
    when,
)

__all__ = ["Panel", "Tile", "gemm", "tile_of"]

BLOCK_ROWS = 512
"""Rows packed at once, at most: bounds the scratch memory and keeps it in the last-level cache."""


@dataclass(frozen=True)
class Tile:
    """Accumulators of the inner loop: `rows` × `vectors` registers."""

    rows: int
    vectors: int


def tile_of(simd: Simd) -> Tile:
    """Enough accumulators to hide the latency of multiply-adds, with registers left for the operands."""
    return Tile(rows=8 if simd.registers >= 32 else 6, vectors=2)


@dataclass(frozen=True)
class Panel:
    """Where a panel's columns come from: vector v holds rows `firsts[v]`, … of `weights[v]`."""

    weights: Sequence[Buffer]
    firsts: Sequence[Expr]


Write = Callable[[Expr, Sequence[Expr]], None]
"""`write(row, vectors)` stores one row of a finished tile."""


def gemm(simd: Simd, x: Buffer, panels: Sequence[tuple[int, Callable[[Expr], Panel], Callable[[Expr], Write]]]) -> None:
    """Emit the product. Each of `panels` is (how many, panel(i), write(i)): the panels of one weight."""
    tile, size, total = tile_of(simd), int(x.shape[1]), x.shape[0]
    packed = scratch(-(-BLOCK_ROWS // tile.rows), size, tile.rows)
    with T.serial((total + BLOCK_ROWS - 1) // BLOCK_ROWS) as block:
        first = T.bind(block * BLOCK_ROWS)
        last = T.bind(T.min(first + BLOCK_ROWS, total))
        tiles = T.bind((last - first + tile.rows - 1) // tile.rows)
        with T.parallel(tiles) as i:
            _pack_rows(simd, tile, x, first + i * tile.rows, last, packed, i)
        with T.parallel(sum(count for count, _, _ in panels)) as item:
            panel = scratch(size, tile.vectors * simd.lanes)
            start = 0
            for count, source, _ in panels:
                with when(T.And(item >= start, item < start + count)):
                    _pack_panel(simd, source(item - start), panel, size)
                start += count
            with T.serial(tiles) as i:
                sums = _multiply(simd, tile, packed, i, panel, size)
                start = 0
                for count, _, write in panels:
                    with when(T.And(item >= start, item < start + count)):
                        _write_tile(tile, sums, first + i * tile.rows, last, write(item - start))
                    start += count


def _pack_rows(simd: Simd, tile: Tile, x: Buffer, first: Expr, last: Expr, packed: Buffer, i: Expr) -> None:
    for r in range(tile.rows):
        row = T.bind(T.min(first + r, last - 1))
        with T.serial(int(x.shape[1])) as k:
            store(packed, load(x, row, k), i, k, r)


def _pack_panel(simd: Simd, source: Panel, panel: Buffer, size: int) -> None:
    """Transpose squares of lanes × lanes; bfloat16 goes two columns at a time, as the halves of a 32-bit lane."""
    lanes = simd.lanes
    for v, (weight, first) in enumerate(zip(source.weights, source.firsts, strict=True)):
        rows = int(weight.shape[0])
        bf16 = str(weight.dtype) == "bfloat16"
        step = 2 * lanes if bf16 else lanes

        def row(r: Expr, first: Expr = first, rows: int = rows) -> Expr:
            return first + r if rows % lanes == 0 else T.min(first + r, rows - 1)

        if size >= step:
            with T.serial(size // step) as square:
                k = T.bind(square * step)
                if bf16:
                    pairs = [_pairs(weight, row(r), k, lanes) for r in range(lanes)]
                    for c, both in enumerate(transpose(pairs)):
                        for half, value in enumerate(_halves(both)):
                            store(panel, value, k + 2 * c + half, v * lanes)
                else:
                    for c, value in enumerate(transpose([load(weight, row(r), k, lanes=lanes) for r in range(lanes)])):
                        store(panel, value, k + c, v * lanes)
        if size % step:
            with T.serial(size % step) as rest, T.serial(lanes) as r:
                k = size - size % step + rest
                store(panel, load(weight, row(r), k), k, v * lanes + r)


def _pairs(weight: Buffer, row: Expr, k: Expr, lanes: int) -> Expr:
    bits = T.reinterpret(f"uint16x{2 * lanes}", weight[row, T.Ramp(k, 1, 2 * lanes)])
    return T.bind(T.reinterpret(f"uint32x{lanes}", bits))


def _halves(both: Expr) -> tuple[Expr, Expr]:
    lanes = lanes_of(both)
    low = T.shift_left(both, splat(T.uint32(16), lanes))
    high = T.bitwise_and(both, splat(T.uint32(0xFFFF0000), lanes))
    return T.reinterpret(f"float32x{lanes}", low), T.reinterpret(f"float32x{lanes}", high)


def _multiply(simd: Simd, tile: Tile, packed: Buffer, i: Expr, panel: Buffer, size: int) -> list[list[Register]]:
    sums = [[Register(splat(0.0, simd.lanes)) for _ in range(tile.vectors)] for _ in range(tile.rows)]
    with T.serial(size) as k:
        weights = [load(panel, k, v * simd.lanes, lanes=simd.lanes) for v in range(tile.vectors)]
        for r in range(tile.rows):
            x = T.bind(splat(packed[i, k, r], simd.lanes))
            for v in range(tile.vectors):
                sums[r][v].add(x * weights[v])
    return sums


def _write_tile(tile: Tile, sums: list[list[Register]], first: Expr, last: Expr, write: Write) -> None:
    for r in range(tile.rows):
        with when(first + r < last):
            write(first + r, [register.value for register in sums[r]])
