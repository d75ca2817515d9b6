"""The library file of an artifact for CUDA: cubins, and how each kernel symbol of the manifest becomes launches.

A manifest's `Launch` names a symbol and buffers; the symbol's `Recipe` is a list of calls on those buffers. All of
a call but addresses is fixed when it is compiled, for a recipe is made for one bucket of rows: grid, scalars and the
shapes of tensor descriptors are numbers.

Buckets. Program `decode` is captured for each of `decode_rows` (its only dim is T). Program `forward` is captured in
two parts: its launches over T for each of `tokens` (with S = the artifact's max_sequences), and its launches over R,
which come last, for each of `rows`. `greedy`, `sample` and `log_probs` are captured for each of `rows`. A step takes
the smallest bucket that holds it; padding is: tokens 0, positions 0, slots -1, query_lens and context_lens 0,
query_starts 0, rows 0, edit_lens 0.

Dependent launches. A kernel with `pdl` may begin while the one ahead of it runs: it waits itself before it reads what
others wrote or writes anything. What the host wrote for the step, and what a prologue wrote, it may read at once: so
the first launch of a graph, and the first after the prologue, are made without.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "Buckets",
    "Call",
    "CudaLibrary",
    "Descriptor",
    "Int",
    "Io",
    "Kernel",
    "Operand",
    "Param",
    "Recipe",
    "Scratch",
    "WordCopy",
]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Kernel(_Record, frozen=True):
    """A function of a cubin. Two more pointers, null, follow its parameters (Triton's scratch)."""

    file: str
    """Relative to the artifact."""
    entry: str
    threads: int
    shared_bytes: int
    """Dynamic."""
    pdl: bool


class Operand(_Record, frozen=True, tag="operand"):
    """The launch's argument `arg`: a buffer's address plus `offset` bytes, or an int (i32) by value."""

    arg: int
    offset: int = 0


class Int(_Record, frozen=True, tag="int"):
    value: int
    bits: Literal[32, 64] = 32


class Io(_Record, frozen=True, tag="io"):
    """The address of a step input or output by name that is no argument of the launch.

    Any io buffer of the manifest, or `table_width`: i32[1], pages of a row of this step's page_table.
    """

    name: str


class Scratch(_Record, frozen=True, tag="scratch"):
    """The address of a scratch buffer, plus `offset` bytes."""

    name: str
    offset: int = 0


class Descriptor(_Record, frozen=True, tag="descriptor"):
    """A tensor map (128 bytes by value) over the launch's argument `arg`; zeros outside of the array.

    The array is dense, row-major, bf16. Its shape and strides are not repeated: where the kernel takes them, they
    follow as Ints.
    """

    arg: int
    shape: list[int]
    """Outermost first."""
    box: list[int]
    swizzle: Literal[0, 32, 64, 128]
    """Bytes."""
    pages: bool = False
    """shape[0] is that of one KV page: times the pages that there are."""


Param = Operand | Int | Io | Scratch | Descriptor


class Call(_Record, frozen=True):
    kernel: str
    """Key in `CudaLibrary.kernels`."""
    grid: tuple[int, int, int]
    params: list[Param]


class Recipe(_Record, frozen=True):
    """The calls that compute a node for one bucket of rows."""

    calls: list[Call]
    prologue: list[Call] = []
    """Run once a graph, before everything else; calls that are equal once bound, as those of all layers, are one."""


class Buckets(_Record, frozen=True):
    """Each rising; the last ones are the artifact's max_sequences, max_tokens, max_sequences."""

    decode_rows: list[int]
    tokens: list[int]
    rows: list[int]


class WordCopy(_Record, frozen=True):
    """The kernel by which a step's inputs and results cross the bus; its parameters are to, source, words (i32)."""

    kernel: str
    """Key in `CudaLibrary.kernels`."""
    words: int
    """That a program of it copies."""


class CudaLibrary(_Record, frozen=True):
    buckets: Buckets
    word_copy: WordCopy
    kernels: dict[str, Kernel]
    recipes: dict[str, Recipe]
    """By the symbols that the manifest's variants name."""
    scratch: dict[str, int]
    """Name → bytes. Zeroed once, when it is allocated; shared by all launches (they never overlap in writing)."""
    defaults: list[str] = []
    """Kernels whose configuration no tuning table has: a stated default was taken."""
