"""token[r] = inverse_cdf(top_p(top_k(min_p(softmax(edit(logits[r]) / temperature[r])))), uniform[r])

The six steps are those of ir/ops/sampling.py. logits f32 [R, V]; edit_starts, edit_lens, top_k i32 [R];
temperature, top_p, min_p, uniform f32 [R]; edit_tokens i32 [E], edit_scale and edit_add f32 [E]; token i32 [R].

Every cut is a threshold on p, and the bits of a float32 ≥ 0 are in the order of its value: the threshold with
"at least k tokens" or "at least this mass" above it is found by bisection over bits, with no sort.
Floor: 4·R·V bytes; a cut by top_k or top_p passes up to 30 times over a row in cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oi.codegen.cpu.kernels.greedy import argmax
from oi.codegen.cpu.simd import (
    Buffer,
    Expr,
    Kernel,
    Register,
    Simd,
    T,
    declare,
    dim,
    exp,
    for_columns,
    horizontal_sum,
    load,
    scratch,
    select,
    splat,
    store,
    when,
)
from oi.ir.types import DType

__all__ = ["sample"]

_ONE = 0x3F80_0000
"""The bits of 1.0, the largest p."""
_UNROLL = 4


@dataclass(frozen=True)
class _Row:
    """One row's weights p, the largest 1, padded with zeros to whole chunks."""

    simd: Simd
    size: int
    p: Buffer

    @property
    def chunk(self) -> int:
        return self.simd.lanes * _UNROLL

    @property
    def chunks(self) -> int:
        return -(-self.size // self.chunk)

    def total(self, zero: Expr, term: Callable[[Expr], Expr]) -> Expr:
        """Σ of `term(weights)` over all vectors; `zero` is a scalar of its dtype."""
        sums = [Register(splat(zero, self.simd.lanes)) for _ in range(_UNROLL)]
        with T.serial(self.chunks) as i:
            for u, register in enumerate(sums):
                register.add(term(self._load(i, u)))
        values = [register.value for register in sums]
        return horizontal_sum((values[0] + values[1]) + (values[2] + values[3]))

    def _load(self, chunk: Expr, u: int) -> Expr:
        return load(self.p, chunk * self.chunk + u * self.simd.lanes, lanes=self.simd.lanes)

    def count(self, least: Expr) -> Expr:
        """How many tokens have p ≥ least > 0."""
        lanes = self.simd.lanes
        one, none = splat(T.int32(1), lanes), splat(T.int32(0), lanes)
        return self.total(T.int32(0), lambda p: select(p >= splat(least, lanes), one, none))

    def mass(self, least: Expr) -> Expr:
        """Σ p over p ≥ least."""
        return self.total(T.float32(0), self._kept(least))

    def _kept(self, least: Expr) -> Callable[[Expr], Expr]:
        lanes = self.simd.lanes
        return lambda p: select(p >= splat(least, lanes), p, splat(0.0, lanes))

    def draw(self, least: Expr, uniform: Expr) -> Expr:
        """The lowest v with p[v] ≥ least whose running mass exceeds `uniform` of the whole, by chunks, then by one.

        The whole is summed in the same order, so that the running mass ends at it exactly.
        """
        kept = self._kept(least)
        whole = Register(T.float32(0))
        with T.serial(self.chunks) as i:
            whole.add(self._chunk_mass(kept, i))
        below = T.reinterpret("float32", T.reinterpret("int32", whole.value) - 1)
        goal = T.bind(T.min(uniform * whole.value, below))
        running, chunk, found = Register(T.float32(0)), Register(T.int32(-1)), Register(T.int32(0))
        with T.serial(self.chunks) as i, when(chunk.value < 0):
            after = T.bind(running.value + self._chunk_mass(kept, i))
            with T.If(after > goal):
                with T.Then():
                    chunk.set(i)
                with T.Else():
                    running.set(after)
        with T.serial(self.chunk) as j:
            v = T.bind(chunk.value * self.chunk + j)
            p = load(self.p, v)
            with when(T.And(T.And(p >= least, p > T.float32(0)), running.value <= goal)):
                running.add(p)
                found.set(v)
        return T.bind(found.value)

    def _chunk_mass(self, kept: Callable[[Expr], Expr], chunk: Expr) -> Expr:
        values = [kept(self._load(chunk, u)) for u in range(_UNROLL)]
        return horizontal_sum((values[0] + values[1]) + (values[2] + values[3]))


def _bisect(low: Expr, holds: Callable[[Expr], Expr]) -> Expr:
    """The largest bits of a p such that `holds(p)`, which falls from true at `low` to false above 1."""
    below, above = Register(low), Register(T.int32(_ONE + 1))
    with T.serial(30), when(above.value - below.value > 1):
        middle = T.bind(below.value + T.shift_right(above.value - below.value, T.int32(1)))
        with T.If(holds(T.bind(T.reinterpret("float32", middle)))):
            with T.Then():
                below.set(middle)
            with T.Else():
                above.set(middle)
    return T.bind(below.value)


def _edit(z: Buffer, tokens: Buffer, scale: Buffer, add: Buffer, start: Expr, count: Expr) -> None:
    with T.serial(count) as e:
        v, factor = load(tokens, start + e), load(scale, start + e)
        value = load(z, v)
        scaled = select(value > T.float32(0), value / factor, value * factor)
        store(z, T.bind(scaled + load(add, start + e)), v)


def _weights(row: _Row, largest: Expr, temperature: Expr) -> None:
    """p = exp((z - largest) / temperature), in place; zeros after the last."""

    def step(i: Expr, n: int) -> None:
        store(row.p, exp((load(row.p, i, lanes=n) - splat(largest, n)) / splat(temperature, n)), i)

    for_columns(row.size, row.simd.lanes, step)
    with T.serial(row.size, row.chunks * row.chunk) as v:
        store(row.p, T.float32(0), v)


def _threshold(row: _Row, top_k: Expr, top_p: Expr, min_p: Expr) -> Expr:
    """The least p that all three cuts keep."""
    least = Register(T.reinterpret("int32", min_p))
    with when(T.And(top_k > 0, top_k < row.size)):
        kth = _bisect(T.int32(0), lambda p: row.count(p) >= top_k)
        least.set(T.max(least.value, kth))
    with when(top_p < T.float32(1)):
        goal = T.bind(top_p * row.mass(T.reinterpret("float32", least.value)))
        least.set(_bisect(least.value, lambda p: row.mass(p) >= goal))
    return T.bind(T.reinterpret("float32", least.value))


def sample(simd: Simd, vocabulary: int) -> Kernel:
    def body() -> None:
        rows, edits = dim(), dim()
        ints, floats = (DType.I32, rows), (DType.F32, rows)
        logits, starts, lens, tokens, scale, add, temperature, top_k, top_p, min_p, uniform, token = declare(
            logits=(DType.F32, rows, vocabulary),
            edit_starts=ints,
            edit_lens=ints,
            edit_tokens=(DType.I32, edits),
            edit_scale=(DType.F32, edits),
            edit_add=(DType.F32, edits),
            temperature=floats,
            top_k=ints,
            top_p=floats,
            min_p=floats,
            uniform=floats,
            token=ints,
        )
        with T.parallel(rows) as r:
            z = scratch(vocabulary + simd.lanes * _UNROLL)
            row = _Row(simd, vocabulary, z)
            for_columns(vocabulary, simd.lanes, lambda i, n: store(z, load(logits, r, i, lanes=n), i))
            _edit(z, tokens, scale, add, load(starts, r), load(lens, r))
            largest, best = argmax(simd, vocabulary, lambda i, n: load(z, i, lanes=n))
            heat = load(temperature, r)
            with T.If(heat == T.float32(0)):
                with T.Then():
                    store(token, best, r)
                with T.Else():
                    _weights(row, largest, heat)
                    least = _threshold(row, load(top_k, r), load(top_p, r), load(min_p, r))
                    store(token, row.draw(least, load(uniform, r)), r)

    return Kernel(f"sample_{vocabulary}", body)
