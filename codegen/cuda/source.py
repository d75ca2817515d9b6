"""What is to be compiled and launched, before it is: values that compare, hash and can be sent to other processes.

Once the kernels are compiled they become the records of runtime/cuda_library.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from oi.runtime.cuda_library import Int, Io, Operand, Scratch

__all__ = [
    "Argument",
    "CallSource",
    "Constant",
    "Given",
    "KernelSource",
    "NodeSource",
    "TensorMap",
    "call",
    "integer",
    "io",
]

Constant = int | float
Given = Mapping[str, "Argument | TensorMap"]
"""A kernel's run-time parameters by name."""


@dataclass(frozen=True)
class TensorMap:
    """A tensor descriptor over the launch's argument `arg`: dense, row-major, bf16."""

    arg: int
    shape: tuple[int, ...]
    box: tuple[int, ...]
    """That the kernel copies at once; swizzled by as many bytes as a row of it has, up to 128."""
    pages: bool = False
    """shape[0] is that of one KV page."""


@dataclass(frozen=True)
class Argument:
    """A parameter by address or value."""

    type: str
    """In Triton's words: "*bf16", "*i32", "i32", …"""
    param: Operand | Int | Io | Scratch


@dataclass(frozen=True)
class KernelSource:
    """One cubin."""

    module: str
    function: str
    parameters: tuple[tuple[str, str | tuple[int, ...]], ...]
    """Names and types of those that are not constant, in order; a tensor descriptor's type is its box."""
    constants: tuple[tuple[str, Constant], ...]
    num_warps: int
    max_registers: int | None = None

    @property
    def symbol(self) -> str:
        """A readable name, which need not be unique."""
        constants = "".join(f"-{name}{_short(value)}" for name, value in self.constants if name != "PDL")
        registers = "" if self.max_registers is None else f"-r{self.max_registers}"
        return f"{self.function}{constants}-w{self.num_warps}{registers}"


@dataclass(frozen=True)
class CallSource:
    kernel: KernelSource
    grid: tuple[int, int, int]
    params: tuple[Operand | Int | Io | Scratch | TensorMap, ...]


@dataclass(frozen=True)
class NodeSource:
    """The source of a Recipe."""

    calls: tuple[CallSource, ...]
    prologue: tuple[CallSource, ...] = ()
    scratch: tuple[tuple[str, int], ...] = ()
    """Names and the bytes that are needed of each."""
    untuned: tuple[str, int] | None = None
    """The kernel's shape and the rows, where no table has a measured launch for them."""


def call(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: Given,
    constants: Mapping[str, Constant],
    *,
    num_warps: int,
    pdl: bool,
    max_registers: int | None = None,
) -> CallSource:
    """A launch of a kernel (a function of Triton's or Gluon's) with its parameters by name.

    `pdl` is the kernel's constant PDL where it has one. Raises TypeError where names are missing or too many.
    """
    names = list(kernel.arg_names)
    if "PDL" in names:
        constants = {**constants, "PDL": pdl}
    if set(names) != {*arguments, *constants} or arguments.keys() & constants.keys():
        raise TypeError(f"{kernel.__name__} takes {names}, given {[*arguments, *constants]}")
    given = [(name, arguments[name]) for name in names if name in arguments]
    source = KernelSource(
        kernel.fn.__module__,
        kernel.__name__,
        tuple((name, value.box if isinstance(value, TensorMap) else value.type) for name, value in given),
        tuple((name, constants[name]) for name in names if name in constants),
        num_warps,
        max_registers,
    )
    x, y, z = (*grid, 1, 1)[:3]
    return CallSource(source, (x, y, z), tuple(v if isinstance(v, TensorMap) else v.param for _, v in given))


def integer(value: int) -> Argument:
    return Argument("i32", Int(value))


def io(name: str) -> Argument:
    """An i32 buffer of the step."""
    return Argument("*i32", Io(name))


def largest(needs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The most bytes of each scratch buffer."""
    found: dict[str, int] = {}
    for name, size in needs:
        found[name] = max(found.get(name, 0), size)
    return found


def _short(value: Constant) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(int(value))
