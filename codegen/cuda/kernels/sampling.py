"""How the sampling kernels are launched: pure functions of the vocabulary. Each op is two launches."""

from __future__ import annotations

from dataclasses import dataclass

from oi.codegen.cuda.scratch import Array

__all__ = ["Greedy", "LogProbs", "Sample"]


def _chunks(vocabulary: int, chunk: int) -> dict[str, int]:
    count = -(-vocabulary // chunk)
    return {"V": vocabulary, "C": count, "C_BLOCK": 1 << (count - 1).bit_length()}


@dataclass(frozen=True)
class Greedy:
    """Launches of `greedy_chunks` (grid [R, C]) and `greedy` (grid [R])."""

    chunk: int = 4096

    def constants(self, vocabulary: int) -> tuple[dict[str, int], dict[str, int]]:
        sizes = _chunks(vocabulary, self.chunk)
        return {"V": vocabulary, "CHUNK": self.chunk}, {"C": sizes["C"], "C_BLOCK": sizes["C_BLOCK"]}

    def scratch(self, vocabulary: int, rows: int) -> dict[str, Array]:
        return {"best": ("i64", (rows, _chunks(vocabulary, self.chunk)["C"]))}


@dataclass(frozen=True)
class LogProbs:
    """Launches of `log_probs_chunks` (grid [R, chunk_programs]) and `log_probs` (grid [R])."""

    top: int = 20
    chunk: int = 1024
    chunks_each: int = 4
    candidates: int = 1024
    block: int = 4096
    num_warps: int = 8

    def chunk_programs(self, vocabulary: int) -> int:
        return -(-vocabulary // (self.chunk * self.chunks_each))

    def constants(self, vocabulary: int) -> tuple[dict[str, int], dict[str, int]]:
        sizes = _chunks(vocabulary, self.chunk)
        first = {"V": vocabulary, "C": sizes["C"], "CHUNK": self.chunk, "CHUNKS": self.chunks_each}
        second = {"CHUNK": self.chunk, "TOP": self.top, "CANDIDATES": self.candidates, "BLOCK": self.block}
        return first, {**sizes, **second}

    def scratch(self, vocabulary: int, rows: int) -> dict[str, Array]:
        """`best` and `sums` of both launches, then what the second alone takes, in its order."""
        sizes = _chunks(vocabulary, self.chunk)
        return {
            "best": ("i64", (rows, sizes["C"])),
            "sums": ("f32", (rows, sizes["C"])),
            "selected": ("i32", (rows, sizes["C_BLOCK"])),
            "candidates": ("i64", (rows, self.candidates)),
        }


@dataclass(frozen=True)
class Sample:
    """Launches of `sample_chunks` (grid [R, chunk_programs]) and `sample` (grid [R])."""

    chunk: int = 1024
    chunks_each: int = 4
    ranked: int = 512
    candidates: int = 8192
    block: int = 4096
    num_warps: int = 8

    def chunk_programs(self, vocabulary: int) -> int:
        return -(-vocabulary // (self.chunk * self.chunks_each))

    def constants(self, vocabulary: int) -> tuple[dict[str, int], dict[str, int]]:
        sizes = _chunks(vocabulary, self.chunk)
        first = {"V": vocabulary, "C": sizes["C"], "CHUNK": self.chunk, "CHUNKS": self.chunks_each}
        second = {"CHUNK": self.chunk, "RANKED": self.ranked, "CANDIDATES": self.candidates, "BLOCK": self.block}
        return first, {**sizes, **second}

    def scratch(self, vocabulary: int, rows: int, edits: int) -> dict[str, Array]:
        """`best`, `sums` and `original` of both launches, then what the second alone takes, in its order."""
        sizes = _chunks(vocabulary, self.chunk)
        return {
            "best": ("i64", (rows, sizes["C"])),
            "sums": ("f32", (rows, sizes["C"])),
            "original": ("f32", (edits,)),
            "selected": ("i32", (rows, sizes["C_BLOCK"])),
            "candidates": ("f32", (rows, self.candidates)),
            "candidate_tokens": ("i32", (rows, self.candidates)),
        }
