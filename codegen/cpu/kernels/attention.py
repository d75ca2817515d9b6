"""y[t, h] = Σ_j softmax_j(scale · q[t, h]·k[j]) · v[j],  j ≤ position of t

q and y f32 [T, Q, D], kv f32 [N, L, 2, K, B, D], query_starts, query_lens, context_lens i32 [S], page_table
i32 [S, P]. Head h reads KV head h ÷ G, G = Q ÷ K. Softmax is online: one pass over the keys, in blocks.

An item is (block of one sequence's queries, KV head). One query a sequence (decode) reads keys and values in
place. More of them (prefill) are a [BLOCK_ROWS, D] matrix of (token, head of the group) rows, multiplied with
packed blocks of keys and values by the same register tile as the linear kernels.
Floor: decode 8·D bytes a key and KV head; prefill 4·Q·D FLOP a (query, key) pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oi.codegen.cpu.kernels.gemm import Tile, tile_of
from oi.codegen.cpu.kernels.rms_norm import eps_name
from oi.codegen.cpu.simd import (
    Buffer,
    Expr,
    Kernel,
    Register,
    Simd,
    T,
    cast,
    declare,
    dim,
    exp,
    for_columns,
    horizontal_max,
    horizontal_sum,
    integer,
    load,
    prefetch,
    scratch,
    select,
    splat,
    store,
    stride_parallel,
    transpose,
)
from oi.ir.types import DType

__all__ = ["attention"]

BLOCK_ROWS = 128
"""Query rows of an item, at most: packing a key block is shared by so many."""
BLOCK_KEYS = 128
AHEAD = 16
"""Keys from a load to its prefetch: measured on one core, 10.7 GB/s without, 19 with 16 keys."""
MASKED = -1e30
"""Below any score; finite, so that differences of two are numbers."""


@dataclass(frozen=True)
class _Shape:
    simd: Simd
    group: int
    """Query heads of one KV head."""
    page: int
    size: int
    """Head dim."""
    scale: float

    @property
    def tile(self) -> Tile:
        return tile_of(self.simd)

    @property
    def tokens(self) -> int:
        """Query tokens of an item."""
        return max(1, BLOCK_ROWS // self.group)

    @property
    def rows(self) -> int:
        """Query rows of an item, padded to whole tiles."""
        return -(-self.tokens * self.group // self.tile.rows) * self.tile.rows

    @property
    def padded(self) -> int:
        """Head dim, padded to whole vectors."""
        return -(-self.size // self.simd.lanes) * self.simd.lanes

    @property
    def vectors(self) -> int:
        return self.padded // self.simd.lanes


@dataclass(frozen=True)
class _Keys:
    """Keys and values of one KV head of one sequence, by position."""

    kv: Buffer
    page_table: Buffer
    page: int
    layer: Expr
    head: Expr
    sequence: Expr
    context: Expr
    """How many there are."""

    def row(self, key: Expr, value: bool) -> tuple[Expr, ...]:
        """Index of a key's (or value's) vector in kv, the last dimension left out."""
        number = T.bind(cast("int64", self.page_table[self.sequence, T.truncdiv(key, self.page)]))
        return number, self.layer, int(value), self.head, T.bind(T.truncmod(key, self.page))

    def prefetch(self, key: Expr, value: bool) -> None:
        """Ask for what comes AHEAD keys later: pages are too short for the prefetchers to follow."""
        later = T.bind(T.min(key + AHEAD, self.context - 1))
        prefetch(self.kv, *self.row(later, value), 0, count=int(self.kv.shape[5]))


def attention(simd: Simd, q_heads: int, layers: int, heads: int, page: int, size: int, scale: float) -> Kernel:
    shape = _Shape(simd, q_heads // heads, page, size, scale)

    def body() -> None:
        tokens, pages, sequences, longest = dim(), dim(), dim(), dim()
        q, kv, starts, lens, contexts, page_table, y = declare(
            q=(DType.F32, tokens, q_heads, size),
            kv=(DType.F32, pages, layers, 2, heads, page, size),
            query_starts=(DType.I32, sequences),
            query_lens=(DType.I32, sequences),
            context_lens=(DType.I32, sequences),
            page_table=(DType.I32, sequences, longest),
            y=(DType.F32, tokens, q_heads, size),
        )
        layer = integer("layer")
        blocks, block_sequence, block_first = _list_blocks(shape, tokens, sequences, lens)
        with stride_parallel(blocks * heads) as item:
            block, head = T.bind(T.truncdiv(item, heads)), T.bind(cast("int32", T.truncmod(item, heads)))
            s, first = load(block_sequence, block), load(block_first, block)
            start, count, context = load(starts, s), load(lens, s), load(contexts, s)
            keys = _Keys(kv, page_table, page, layer, head, s, context)
            with T.If(count == 1):
                with T.Then():
                    _decode(shape, q, y, start, head, keys)
                with T.Else():
                    used = T.bind(T.min(count - first, shape.tokens))
                    _prefill(shape, q, y, start + first, used, head, context - count + first, keys)

    return Kernel(f"attention_{q_heads}x{layers}x{heads}x{page}x{size}_{eps_name(scale)}", body)


def _list_blocks(shape: _Shape, tokens: Expr, sequences: Expr, lens: Buffer) -> tuple[Expr, Buffer, Buffer]:
    """How many query blocks there are; of each, the sequence and its first query. No block is empty."""
    sequence, first = scratch(tokens, dtype="int32"), scratch(tokens, dtype="int32")
    count = Register(T.int32(0))
    with T.serial(sequences) as s:
        length = load(lens, s)
        with T.serial(T.truncdiv(length + (shape.tokens - 1), shape.tokens)) as i:
            store(sequence, cast("int32", s), count.value)
            store(first, i * shape.tokens, count.value)
            count.add(T.int32(1))
    return T.bind(count.value), sequence, first


def _copy_query(shape: _Shape, q: Buffer, t: Expr, h: Expr, query: Buffer, row: Expr) -> None:
    """query[row] = scale · q[t, h]"""

    def copy(i: Expr, n: int) -> None:
        store(query, load(q, t, h, i, lanes=n) * splat(shape.scale, n), row, i)

    for_columns(shape.size, shape.simd.lanes, copy)


def _finish(shape: _Shape, out: Buffer, total: Buffer, row: Expr, y: Buffer, t: Expr, h: Expr) -> None:
    """y[t, h] = out[row] / total[row]"""
    inverse = T.bind(T.float32(1) / load(total, row))

    def divide(i: Expr, n: int) -> None:
        store(y, load(out, row, i, lanes=n) * splat(inverse, n), t, h, i)

    for_columns(shape.size, shape.simd.lanes, divide)


# Decode: one query token, G rows.


def _decode(shape: _Shape, q: Buffer, y: Buffer, t: Expr, head: Expr, keys: _Keys) -> None:
    simd, group, context = shape.simd, shape.group, keys.context
    query, out = scratch(group, shape.padded), scratch(group, shape.padded)
    scores, top, total = scratch(group, BLOCK_KEYS), scratch(group), scratch(group)
    for g in range(group):
        _zero(query, shape, g)
        _zero(out, shape, g)
        store(top, T.float32(MASKED), g)
        store(total, T.float32(0), g)
        _copy_query(shape, q, t, T.bind(head * group + g), query, g)
    with T.serial(T.truncdiv(context + (BLOCK_KEYS - 1), BLOCK_KEYS)) as block:
        first = T.bind(block * BLOCK_KEYS)
        count = T.bind(T.min(BLOCK_KEYS, context - first))
        with T.serial(count) as j:
            row = keys.row(first + j, value=False)
            keys.prefetch(first + j, value=False)
            for g in range(group):
                store(scores, _dot(shape, query, g, keys.kv, row), g, j)
        last = T.bind(first + count - 1)
        corrections = [_softmax_row(simd, scores, top, total, g, first, last) for g in range(group)]
        _add_values(shape, out, scores, corrections, first, count, keys)
    for g in range(group):
        _finish(shape, out, total, g, y, t, T.bind(head * group + g))


def _dot(shape: _Shape, query: Buffer, g: int, kv: Buffer, row: Sequence[Expr]) -> Expr:
    """query[g] · kv[row]."""
    lanes = shape.simd.lanes
    value, rest = splat(0.0, lanes), T.float32(0)
    for start, width in _pieces(shape.size, lanes):
        product = load(query, g, start, lanes=width) * load(kv, *row, start, lanes=width)
        if width == lanes:
            value = T.bind(value + product)
        else:
            rest = T.bind(rest + horizontal_sum(product))
    return T.bind(horizontal_sum(value) + rest)


def _pieces(size: int, lanes: int) -> list[tuple[int, int]]:
    """[0, size) as (start, width): full vectors, then ever narrower ones."""
    pieces, start, width = [], 0, lanes
    while start < size:
        if size - start >= width:
            pieces.append((start, width))
            start += width
        else:
            width //= 2
    return pieces


def _add_values(
    shape: _Shape, out: Buffer, scores: Buffer, corrections: Sequence[Expr], first: Expr, count: Expr, keys: _Keys
) -> None:
    """out[g] = out[g] · correction[g] + Σ_j scores[g, j] · v[j], as many g at once as registers hold."""
    pieces = _pieces(shape.size, shape.simd.lanes)
    at_once = max(1, (shape.simd.registers - 4) // len(pieces))
    for begin in range(0, shape.group, at_once):
        gs = range(begin, min(begin + at_once, shape.group))
        sums = {(g, i): Register(load(out, g, i, lanes=n) * splat(corrections[g], n)) for g in gs for i, n in pieces}
        with T.serial(count) as j:
            row = keys.row(first + j, value=True)
            if begin == 0:
                keys.prefetch(first + j, value=True)
            weights = {g: load(scores, g, j) for g in gs}
            for i, n in pieces:
                value = load(keys.kv, *row, i, lanes=n)
                for g in gs:
                    sums[g, i].add(value * splat(weights[g], n))
        for (g, i), register in sums.items():
            store(out, register.value, g, i)


def _softmax_row(simd: Simd, scores: Buffer, top: Buffer, total: Buffer, row: Expr, first: Expr, last: Expr) -> Expr:
    """Turn a row of scores of keys first, first + 1, … into weights, those of keys after `last` into 0.

    Returns what earlier sums must be multiplied with, now that the row's maximum may have grown.
    """
    lanes = simd.lanes
    highest = Register(splat(MASKED, lanes))
    with T.serial(BLOCK_KEYS // lanes) as i:
        key = T.Ramp(first + i * lanes, 1, lanes)
        score = T.bind(
            select(key <= splat(last, lanes), load(scores, row, i * lanes, lanes=lanes), splat(MASKED, lanes))
        )
        store(scores, score, row, i * lanes)
        highest.set(T.max(highest.value, score))
    old = load(top, row)
    new = T.bind(T.max(old, horizontal_max(highest.value)))
    store(top, new, row)
    weights = Register(splat(0.0, lanes))
    with T.serial(BLOCK_KEYS // lanes) as i:
        weight = exp(load(scores, row, i * lanes, lanes=lanes) - splat(new, lanes))
        store(scores, weight, row, i * lanes)
        weights.add(weight)
    correction = exp(old - new)
    store(total, load(total, row) * correction + horizontal_sum(weights.value), row)
    return correction


# Prefill: a block of queries against blocks of keys.


def _prefill(shape: _Shape, q: Buffer, y: Buffer, t: Expr, used: Expr, head: Expr, position: Expr, keys: _Keys) -> None:
    """Query tokens t, …, t + used - 1, the first at `position`."""
    simd, group, tile = shape.simd, shape.group, shape.tile
    query, out = scratch(shape.rows, shape.size), scratch(shape.rows, shape.padded)
    scores, corrections = scratch(shape.rows, BLOCK_KEYS), scratch(shape.rows)
    top, total = scratch(shape.rows), scratch(shape.rows)
    key_panel, value_panel = scratch(shape.size, BLOCK_KEYS), scratch(BLOCK_KEYS, shape.padded)
    rows = T.bind(used * group)
    with T.serial(used) as token, T.serial(group) as g:
        r = T.bind(token * group + g)
        _zero(out, shape, r)
        store(top, T.float32(MASKED), r)
        store(total, T.float32(0), r)
        _copy_query(shape, q, t + token, head * group + g, query, r)
    end = T.bind(position + used)
    tiles = T.bind(T.truncdiv(rows + (tile.rows - 1), tile.rows))
    with T.serial(T.truncdiv(end + (BLOCK_KEYS - 1), BLOCK_KEYS)) as block:
        first = T.bind(block * BLOCK_KEYS)
        _pack_keys(shape, keys, first, end, key_panel)
        _copy_values(shape, keys, first, end, value_panel)
        with T.serial(tiles) as i:
            _scores(shape, query, i * tile.rows, key_panel, scores)
        with T.serial(rows) as r:
            last = T.bind(position + T.truncdiv(r, group))
            store(corrections, _softmax_row(simd, scores, top, total, r, first, last), r)
        with T.serial(tiles) as i:
            _weigh_values(shape, scores, corrections, i * tile.rows, value_panel, out)
    with T.serial(used) as token, T.serial(group) as g:
        r = T.bind(token * group + g)
        _finish(shape, out, total, r, y, t + token, head * group + g)


def _zero(buffer: Buffer, shape: _Shape, row: Expr) -> None:
    for v in range(shape.vectors):
        store(buffer, splat(0.0, shape.simd.lanes), row, v * shape.simd.lanes)


def _pack_keys(shape: _Shape, keys: _Keys, first: Expr, end: Expr, panel: Buffer) -> None:
    """panel[d, j] = k[first + j, d]; keys from `end` on repeat the last one."""
    lanes = shape.simd.lanes
    with T.serial(BLOCK_KEYS // lanes) as v:
        rows = [keys.row(T.bind(T.min(first + v * lanes + j, end - 1)), value=False) for j in range(lanes)]
        full = shape.size // lanes
        if full:
            with T.serial(full) as square:
                d = T.bind(square * lanes)
                for c, value in enumerate(transpose([load(keys.kv, *row, d, lanes=lanes) for row in rows])):
                    store(panel, value, d + c, v * lanes)
        for d in range(full * lanes, shape.size):
            for j, row in enumerate(rows):
                store(panel, load(keys.kv, *row, d), d, v * lanes + j)


def _copy_values(shape: _Shape, keys: _Keys, first: Expr, end: Expr, panel: Buffer) -> None:
    """panel[j, d] = v[first + j, d]; values from `end` on repeat the last one."""
    with T.serial(BLOCK_KEYS) as j:
        row = keys.row(T.bind(T.min(first + j, end - 1)), value=True)
        if shape.padded > shape.size:
            _zero(panel, shape, j)
        for_columns(shape.size, shape.simd.lanes, lambda i, n: store(panel, load(keys.kv, *row, i, lanes=n), j, i))


def _scores(shape: _Shape, query: Buffer, first: Expr, panel: Buffer, scores: Buffer) -> None:
    """scores[r, j] = query[r] · panel[:, j] for the tile of rows from `first` on."""
    lanes, tile = shape.simd.lanes, shape.tile
    width = tile.vectors * lanes
    with T.serial(BLOCK_KEYS // width) as strip:
        column = T.bind(strip * width)
        sums = [[Register(splat(0.0, lanes)) for _ in range(tile.vectors)] for _ in range(tile.rows)]
        with T.serial(shape.size) as d:
            ks = [load(panel, d, column + v * lanes, lanes=lanes) for v in range(tile.vectors)]
            for r, row in enumerate(sums):
                x = T.bind(splat(query[first + r, d], lanes))
                for register, k in zip(row, ks, strict=True):
                    register.add(x * k)
        for r, row in enumerate(sums):
            for v, register in enumerate(row):
                store(scores, register.value, first + r, column + v * lanes)


def _weigh_values(shape: _Shape, scores: Buffer, corrections: Buffer, first: Expr, panel: Buffer, out: Buffer) -> None:
    """out[r] = out[r] · corrections[r] + Σ_j scores[r, j] · panel[j] for the tile of rows from `first` on."""
    lanes, tile = shape.simd.lanes, shape.tile
    for begin in range(0, shape.vectors, tile.vectors):
        vs = [v * lanes for v in range(begin, min(begin + tile.vectors, shape.vectors))]
        sums = [
            [Register(load(out, first + r, v, lanes=lanes) * splat(load(corrections, first + r), lanes)) for v in vs]
            for r in range(tile.rows)
        ]
        with T.serial(BLOCK_KEYS) as j:
            values = [load(panel, j, v, lanes=lanes) for v in vs]
            for r, row in enumerate(sums):
                weight = T.bind(splat(scores[first + r, j], lanes))
                for register, value in zip(row, values, strict=True):
                    register.add(weight * value)
        for r, row in enumerate(sums):
            for register, v in zip(row, vs, strict=True):
                store(out, register.value, first + r, v)
