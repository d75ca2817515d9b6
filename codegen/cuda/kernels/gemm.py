"""Which GEMM kernel runs a product, and how it is launched: pure functions of shapes.

The products: `linear`, `linear_concat` on its weights packed [ΣN, K], `swiglu_linear` on [gate ‖ up], [2N, K].
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SHARED_BYTES", "Even", "Gemm", "Gemv", "Portable", "Prefill", "Skinny", "block_m"]

SHARED_BYTES = 227 * 1024
"""Of one SM of sm_90, for one program."""


@dataclass(frozen=True)
class Gemm:
    """y[M, n] = x[M, k] · weight[n, k]ᵀ, or y = silu(x·gateᵀ) ∘ (x·upᵀ) with n columns of y and a weight [2n, k]."""

    n: int
    k: int
    swiglu: bool = False
    f32: bool = False
    """y is float32 (logits), else bf16. Only `gemm_skinny` does that."""

    @property
    def weight_rows(self) -> int:
        return 2 * self.n if self.swiglu else self.n


@dataclass(frozen=True)
class Gemv:
    """Launch of `gemv`; see there."""

    rows: int
    """Of the weight (with SwiGLU: of gate and of up) that a program reads."""
    depth: int
    num_warps: int
    chunk: int = 512

    def constants(self, gemm: Gemm, rows: int) -> dict[str, int]:
        """The kernel's compile-time parameters, but for PDL."""
        return {
            "M": rows,
            "N": gemm.n,
            "K": gemm.k,
            "ROWS": self.rows,
            "CHUNK": self.chunk,
            "DEPTH": self.depth,
            "SWIGLU": gemm.swiglu,
        }

    def grid(self, gemm: Gemm) -> int:
        return gemm.n // self.rows


@dataclass(frozen=True)
class _Ring:
    """What the launches of `gemm_skinny` and `gemm_even` have in common: tiles of the weight and x, STAGES of them."""

    block_n: int
    block_k: int
    stages: int
    programs: int
    """At most."""

    @property
    def num_warps(self) -> int:
        """A warpgroup for each 64 rows of the weight."""
        return self.block_n // 16

    def shared_bytes(self, gemm: Gemm, rows: int) -> int:
        """Of the ring."""
        parts = 2 if gemm.swiglu else 1
        return self.stages * self.block_k * 2 * (parts * self.block_n + block_m(rows))

    def boxes(self, rows: int) -> dict[str, tuple[int, int]]:
        """Of the kernel's tensor descriptors: bf16, swizzled by 128 bytes, zeros outside of the array."""
        return {"w_desc": (self.block_n, self.block_k), "x_desc": (block_m(rows), self.block_k)}

    def max_registers(self, gemm: Gemm, rows: int) -> int | None:
        """Of a thread, for two programs and a small kernel on a multiprocessor; None where that is too few."""
        half = (65536 - 8192) // 2 // (32 * (self.num_warps + 4)) // 8 * 8
        needed = block_m(rows) // 2 + 26  # by one product: its sums, and the assembler's least besides
        return half if self.shared_bytes(gemm, rows) <= SHARED_BYTES // 2 and needed <= half else None

    def tiles(self, gemm: Gemm) -> int:
        return -(-gemm.n // self.block_n)

    def _constants(self, gemm: Gemm, rows: int, programs: int) -> dict[str, int]:
        return {
            "N": gemm.n,
            "K": gemm.k,
            "BLOCK_N": self.block_n,
            "BLOCK_M": block_m(rows),
            "BLOCK_K": self.block_k,
            "STAGES": self.stages,
            "PROGRAMS": programs,
            "SWIGLU": gemm.swiglu,
        }

    def _part_bytes(self, gemm: Gemm, rows: int) -> int:
        """Of one tile's float32 sums."""
        return 4 * (2 if gemm.swiglu else 1) * block_m(rows) * self.block_n


@dataclass(frozen=True)
class Skinny(_Ring):
    """Launch of `gemm_skinny`; see there."""

    def constants(self, gemm: Gemm, rows: int) -> dict[str, int]:
        """The kernel's compile-time parameters."""
        return {**self._constants(gemm, rows, self.grid(gemm)), "SHARERS": self.sharers(gemm)}

    def grid(self, gemm: Gemm) -> int:
        """Number of programs: each has at least one unit of work."""
        return min(self.programs, self.tiles(gemm) * (gemm.k // self.block_k))

    def sharers(self, gemm: Gemm) -> int:
        """The most programs that work on one tile."""
        steps, programs = gemm.k // self.block_k, self.grid(gemm)
        units = self.tiles(gemm) * steps

        def owner(unit: int) -> int:
            return ((unit + 1) * programs - 1) // units

        return max(owner((t + 1) * steps - 1) - owner(t * steps) + 1 for t in range(self.tiles(gemm)))

    def tickets(self, gemm: Gemm) -> int:
        """i32, zero before the first launch."""
        return self.tiles(gemm)

    def partial_bytes(self, gemm: Gemm, rows: int) -> int:
        """Of scratch for partial sums."""
        return self.grid(gemm) * 2 * self._part_bytes(gemm, rows) if self.sharers(gemm) > 1 else 0


@dataclass(frozen=True)
class Even(_Ring):
    """Launch of `gemm_even`; see there. `programs` are no more than there are multiprocessors."""

    def constants(self, gemm: Gemm, rows: int) -> dict[str, int]:
        """The kernel's compile-time parameters."""
        own = {"WHOLE": self.whole(gemm), "REST": self.rest(gemm), "SPLITS": self.splits(gemm)}
        return {**self._constants(gemm, rows, self.grid(gemm)), **own}

    def whole(self, gemm: Gemm) -> int:
        """Tiles that each program computes alone."""
        return self.tiles(gemm) // self.programs

    def rest(self, gemm: Gemm) -> int:
        """Tiles left over."""
        return self.tiles(gemm) % self.programs

    def splits(self, gemm: Gemm) -> int:
        """Programs on each tile left over; 1 where there is nothing to split, which is `gemm_skinny`'s to do."""
        rest = self.rest(gemm)
        return min(gemm.k // self.block_k, self.programs // rest) if rest else 1

    def grid(self, gemm: Gemm) -> int:
        """Number of programs: each has work."""
        return self.programs if self.whole(gemm) else self.rest(gemm) * self.splits(gemm)

    def tickets(self, gemm: Gemm) -> int:
        """i32, zero before the first launch."""
        return self.rest(gemm)

    def partial_bytes(self, gemm: Gemm, rows: int) -> int:
        """Of scratch for partial sums."""
        return self.rest(gemm) * self.splits(gemm) * self._part_bytes(gemm, rows)


@dataclass(frozen=True)
class Prefill:
    """Launch of `gemm_prefill`; see there."""

    n0: int
    n1: int
    stages: int
    block_m: int = 128
    block_k: int = 64
    group_m: int = 8

    num_warps = 8

    @classmethod
    def of_tile(cls, gemm: Gemm, block_m: int, n0: int, n1: int) -> Prefill:
        """With the most stages that leave room for the tile of y."""
        part = n0 if gemm.swiglu or block_m * (n0 + n1) >= 32768 else n0 + n1
        stage = 2 * 64 * (block_m + n0 + n1)
        return cls(n0, n1, min(6, gemm.k // 64, (SHARED_BYTES - 1024 - 2 * block_m * part) // stage), block_m)

    def boxes(self) -> dict[str, tuple[int, int]]:
        """Of the kernel's tensor descriptors: bf16, swizzled by 128 bytes, zeros outside of the array."""
        n1 = self.n1 or self.n0
        return {
            "x_desc": (self.block_m, self.block_k),
            "w0_desc": (self.n0, self.block_k),
            "w1_desc": (n1, self.block_k),
            "y0_desc": (self.block_m, self.n0),
            "y1_desc": (self.block_m, n1),
        }

    def constants(self, gemm: Gemm) -> dict[str, int]:
        """The kernel's compile-time parameters."""
        return {
            "N": gemm.n,
            "K": gemm.k,
            "BLOCK_M": self.block_m,
            "N0": self.n0,
            "N1": self.n1,
            "BLOCK_K": self.block_k,
            "STAGES": self.stages,
            "GROUP_M": self.group_m,
            "SWIGLU": gemm.swiglu,
        }

    def grid(self, gemm: Gemm, rows: int, multiprocessors: int) -> int:
        """Number of programs: persistent, so no more than there are multiprocessors."""
        block_n = self.n0 if gemm.swiglu else self.n0 + self.n1
        return min(multiprocessors, -(-rows // self.block_m) * -(-gemm.n // block_n))


@dataclass(frozen=True)
class Portable:
    """Launch of `gemm_portable`; see there."""

    block_m: int
    block_n: int
    """Columns of y: with SwiGLU, a step reads as many rows of gate and of up."""
    block_k: int
    stages: int
    splits: int = 1
    group_m: int = 8

    num_warps = 4

    def step_bytes(self, gemm: Gemm) -> int:
        """Of x and the weight."""
        parts = 2 if gemm.swiglu else 1
        return 2 * self.block_k * (self.block_m + parts * self.block_n)

    def shared_bytes(self, gemm: Gemm) -> int:
        """Triton's ring has a place fewer than there are stages, but for Hopper's products of 64 rows and more."""
        return (self.stages - 1) * self.step_bytes(gemm)

    def constants(self, gemm: Gemm) -> dict[str, int]:
        """The kernel's compile-time parameters, but for PDL."""
        return {
            "N": gemm.n,
            "K": gemm.k,
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "BLOCK_K": self.block_k,
            "STAGES": self.stages,
            "SPLITS": self.splits,
            "GROUP_M": self.group_m,
            "SWIGLU": gemm.swiglu,
        }

    def tiles(self, gemm: Gemm, rows: int) -> int:
        """Where there are splits also the number of tickets: i32, zero before the first launch."""
        return -(-rows // self.block_m) * -(-gemm.n // self.block_n)

    def grid(self, gemm: Gemm, rows: int) -> int:
        return self.tiles(gemm, rows) * self.splits

    def part_bytes(self, gemm: Gemm) -> int:
        """Of one tile's float32 sums."""
        return 4 * (2 if gemm.swiglu else 1) * self.block_m * self.block_n

    def partial_bytes(self, gemm: Gemm, rows: int) -> int:
        """Of scratch for partial sums."""
        return self.grid(gemm, rows) * self.part_bytes(gemm) if self.splits > 1 else 0


def block_m(rows: int) -> int:
    """Rows of the skinny kernel's tile of x: the instruction takes 8, 16, 32, … columns."""
    return max(8, 1 << (rows - 1).bit_length())
