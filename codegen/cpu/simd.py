"""Writing TensorIR with vectors.

Plain Python runs while a kernel is built: its loops unroll, its ifs choose code. `T.serial`, `T.parallel` and
`when` run in the kernel. Tensors are row-major and aligned to their elements only, because weights are used in
place from the mapped checkpoint. Static sizes are ints, symbolic ones int64 expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812

from oi.ir.types import DType

__all__ = [
    "Buffer",
    "Expr",
    "Kernel",
    "Register",
    "Simd",
    "T",
    "cast",
    "declare",
    "dim",
    "exp",
    "for_columns",
    "horizontal_max",
    "horizontal_sum",
    "integer",
    "lanes_of",
    "load",
    "log",
    "max_columns",
    "nest",
    "parallel_rows",
    "prefetch",
    "scratch",
    "select",
    "sigmoid",
    "splat",
    "store",
    "store_clipped",
    "stride_parallel",
    "sum_columns",
    "transpose",
    "when",
    "widen",
]

Expr = Any
"""A TensorIR expression: a scalar, or a vector of `lanes`."""
Buffer = Any

_TYPES = {DType.F32: "float32", DType.BF16: "bfloat16", DType.I32: "int32"}
_ON_STACK = {"disable_lower_builtin": True}
"""Keeps a small buffer out of TVM's workspace pool, so that LLVM can promote it to registers."""
SERIAL_ROWS = 4
"""Cheap row-wise kernels run on the calling thread up to this many rows: waking the others costs more."""


@dataclass(frozen=True)
class Simd:
    """The vector unit that kernels are shaped for."""

    lanes: int
    """float32 elements of a vector register."""
    registers: int
    """Vector registers."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be built. The name determines everything: equal names, equal code."""

    name: str
    body: Callable[[], None]
    """Declares the arguments in order (`declare`, `integer`), then emits the statements."""

    def prim_func(self) -> Any:
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name(self.name)
            T.func_attr({"tirx.noalias": True})
            self.body()
        return builder.get()


def dim() -> Expr:
    """A symbolic size, read from the shape of the first tensor that has it and checked in the others."""
    return T.int64()


def declare(**tensors: tuple[DType, *tuple[Expr, ...]]) -> list[Buffer]:
    """The tensor arguments in order, each `name=(dtype, *shape)`; `integer` arguments come after them."""
    handles = {name: T.arg(name, T.handle()) for name in tensors}
    return [_match(handles[name], name, dtype, shape) for name, (dtype, *shape) in tensors.items()]


def integer(name: str) -> Expr:
    """An int argument passed by value."""
    return T.arg(name, T.int32())


def _match(handle: Expr, name: str, dtype: DType, shape: Sequence[Expr]) -> Buffer:
    buffer = T.match_buffer(handle, shape, _TYPES[dtype], align=dtype.itemsize)
    IRBuilder.name(name, buffer)
    return buffer


def scratch(*shape: Expr, dtype: str = "float32") -> Buffer:
    """Memory of the thread that runs this statement, until the end of the enclosing scope."""
    return T.alloc_buffer(shape, dtype)


class Register:
    """A variable, vector or scalar, that LLVM keeps in a register."""

    def __init__(self, initial: Expr) -> None:
        self._lanes = lanes_of(initial)
        self._buffer = T.alloc_buffer((self._lanes,), _scalar_type(initial), annotations=_ON_STACK)
        self.set(initial)

    @property
    def value(self) -> Expr:
        """The value now, as an expression to be used before the next `set`."""
        return self._buffer[_lanes_at(0, self._lanes)]

    def set(self, value: Expr) -> None:
        T.buffer_store(self._buffer, value, [_lanes_at(0, self._lanes)])

    def add(self, value: Expr) -> None:
        self.set(self.value + value)


def _lanes_at(start: Expr, lanes: int) -> Expr:
    return start if lanes == 1 else T.Ramp(start, 1, lanes)


def _dtype(value: Expr) -> str:
    return str(value.ty.dtype) if hasattr(value, "ty") else str(value.dtype)


def _scalar_type(value: Expr) -> str:
    return _dtype(value).split("x")[0]


def lanes_of(value: Expr) -> int:
    """Elements of a vector; 1 for a scalar."""
    return int((*_dtype(value).split("x"), "1")[1])


def _vector_type(scalar: str, lanes: int) -> str:
    return scalar if lanes == 1 else f"{scalar}x{lanes}"


def splat(value: Expr, lanes: int) -> Expr:
    """All lanes hold `value`; a Python float is a float32."""
    value = T.float32(value) if isinstance(value, float) else value
    return value if lanes == 1 else T.Broadcast(value, lanes)


def cast(dtype: str, value: Expr) -> Expr:
    return T.Cast(_vector_type(dtype, lanes_of(value)), value)


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    """Lane by lane, both sides evaluated."""
    return T.Select(condition, yes, no)


def widen(value: Expr) -> Expr:
    """bfloat16 bits are the upper half of the same float32's."""
    lanes = lanes_of(value)
    bits = T.Cast(_vector_type("uint32", lanes), T.reinterpret(_vector_type("uint16", lanes), value))
    return T.reinterpret(_vector_type("float32", lanes), T.shift_left(bits, splat(T.uint32(16), lanes)))


def load(buffer: Buffer, *index: Expr, lanes: int = 1) -> Expr:
    """`lanes` consecutive elements from `index` on, floats as float32. Evaluated once, here."""
    *outer, start = index
    value = buffer[(*outer, _lanes_at(start, lanes))]
    return T.bind(widen(value) if str(buffer.dtype) == "bfloat16" else value)


def store(buffer: Buffer, value: Expr, *index: Expr) -> None:
    *outer, start = index
    T.buffer_store(buffer, value, [*outer, _lanes_at(start, lanes_of(value))])


def store_clipped(buffer: Buffer, value: Expr, end: int | None, *index: Expr) -> None:
    """Like `store`, but only the lanes whose column is before `end` (None: all of them are)."""
    if end is None:
        return store(buffer, value, *index)
    *outer, start = index
    lanes = lanes_of(value)
    value, start = T.bind(value), T.bind(start)
    with T.If(start + lanes <= end):
        with T.Then():
            store(buffer, value, *outer, start)
        with T.Else():
            for lane in range(lanes):
                with when(start + lane < end):
                    store(buffer, T.Shuffle([value], [lane]), *outer, start + lane)
    return None


def transpose(rows: Sequence[Expr]) -> list[Expr]:
    """Column c of a square of vectors, for all c: log2(n) rounds of two-operand shuffles."""
    n, values = len(rows), list(rows)
    for bit in (1 << i for i in range(n.bit_length() - 1)):
        low = [j if not j & bit else (j ^ bit) + n for j in range(n)]
        high = [j | bit if not j & bit else j + n for j in range(n)]
        for i in range(n):
            if not i & bit:
                pair = [values[i], values[i | bit]]
                values[i], values[i | bit] = T.bind(T.Shuffle(pair, low)), T.bind(T.Shuffle(pair, high))
    return values


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Run the body where `condition` holds; the plain True costs nothing."""
    if condition is True:
        yield
        return
    with T.If(condition), T.Then():
        yield


def prefetch(buffer: Buffer, *index: Expr, count: int) -> None:
    """Ask for the lines of `count` elements from `index` on; they may lie past the end.

    They go to the second-level cache: the first one's few miss buffers would bound the bandwidth of one core.
    """
    *outer, start = index
    per_line = 64 // (2 if str(buffer.dtype) == "bfloat16" else 4)
    for line in range(-(-count // per_line)):
        address = T.address_of(buffer[(*outer, start + line * per_line)])
        T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", address, T.int32(0), T.int32(2), T.int32(1)))


def for_columns(size: int, lanes: int, body: Callable[[Expr, int], None]) -> None:
    """Call `body(start, width)` over [0, size): a loop of full vectors, then ever narrower ones, unrolled."""
    full, width = size - size % lanes, lanes
    if full:
        with T.serial(full // lanes) as i:
            body(i * lanes, lanes)
    while full < size:
        width //= 2
        if size - full >= width:
            body(full, width)
            full += width


def sum_columns(size: int, lanes: int, term: Callable[[Expr, int], Expr]) -> Expr:
    """Σ of `term(start, width)` over [0, size), a float32."""
    total = Register(splat(0.0, lanes))
    rest = Register(splat(0.0, 1))

    def step(start: Expr, width: int) -> None:
        if width == lanes:
            total.add(term(start, width))
        else:
            rest.add(horizontal_sum(term(start, width)))

    for_columns(size, lanes, step)
    return T.bind(horizontal_sum(total.value) + rest.value)


def max_columns(size: int, lanes: int, term: Callable[[Expr, int], Expr]) -> Expr:
    """The largest of `term(start, width)` over [0, size)."""
    highest = Register(splat(float("-inf"), lanes))
    rest = Register(splat(float("-inf"), 1))

    def step(start: Expr, width: int) -> None:
        if width == lanes:
            highest.set(T.max(highest.value, term(start, width)))
        else:
            rest.set(T.max(rest.value, horizontal_max(term(start, width))))

    for_columns(size, lanes, step)
    return T.bind(T.max(horizontal_max(highest.value), rest.value))


def nest(sizes: Sequence[int], body: Callable[..., None]) -> None:
    """Call `body(i, j, …)` in nested loops over `sizes`."""
    if not sizes:
        return body()
    with T.serial(sizes[0]) as i:
        nest(sizes[1:], lambda *rest: body(i, *rest))
    return None


def parallel_rows(rows: Expr, body: Callable[[Expr], None]) -> None:
    """Call `body(row)` for each row, spread over the threads where there are enough rows to pay for it."""
    with T.If(rows <= SERIAL_ROWS):
        with T.Then(), T.serial(rows) as row:
            body(row)
        with T.Else(), T.parallel(rows) as row:
            body(row)


@contextmanager
def stride_parallel(items: Expr) -> Iterator[Expr]:
    """A parallel loop dealt out in turns: thread t of n runs items t, t + n, …"""
    pragmas = {"pragma_parallel_launch_point": 1, "pragma_parallel_stride_pattern": 1}
    with T.attr(pragmas), T.parallel(items) as item:
        yield item


def _fold(value: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    lanes = lanes_of(value)
    while lanes > 1:
        lanes //= 2
        value = T.bind(value)
        low, high = (T.Shuffle([value], list(range(start, start + lanes))) for start in (0, lanes))
        value = combine(low, high)
    return T.bind(value)


def horizontal_sum(value: Expr) -> Expr:
    """The sum of a vector's lanes, pairwise."""
    return _fold(value, lambda a, b: a + b)


def horizontal_max(value: Expr) -> Expr:
    return _fold(value, T.max)


_EXP_MIN, _EXP_MAX = -87.336_54, 88.376_26
_EXP_TERMS = (1.987_569_1e-4, 1.398_199_95e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5)


def exp(value: Expr) -> Expr:
    """e to the `value` within 2 units in the last place; 0 below -87.3, infinity above 88.3.

    e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2, e^r by a polynomial of degree 7.
    """
    lanes = lanes_of(value)
    x = T.bind(value)
    clamped = T.bind(T.max(T.min(x, splat(_EXP_MAX, lanes)), splat(_EXP_MIN, lanes)))
    n = T.bind(T.nearbyint(clamped * splat(1.442_695_04, lanes)))
    r = T.bind(clamped - n * splat(0.693_359_375, lanes) - n * splat(-2.121_944_4e-4, lanes))
    p = splat(_EXP_TERMS[0], lanes)
    for term in _EXP_TERMS[1:]:
        p = p * r + splat(term, lanes)
    power = T.shift_left(cast("int32", n) + splat(T.int32(127), lanes), splat(T.int32(23), lanes))
    scale = T.reinterpret(_vector_type("float32", lanes), power)
    result = T.bind((p * r * r + r + splat(1.0, lanes)) * scale)
    result = select(x > splat(_EXP_MAX, lanes), splat(float("inf"), lanes), result)
    return T.bind(select(x < splat(_EXP_MIN, lanes), splat(0.0, lanes), result))


def log(value: Expr) -> Expr:
    """Natural logarithm of a scalar, libm's."""
    return T.bind(T.log(value))


def sigmoid(value: Expr) -> Expr:
    one = splat(1.0, lanes_of(value))
    return one / (one + exp(-value))
