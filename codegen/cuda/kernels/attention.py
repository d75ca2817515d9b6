"""How the attention kernels are launched: pure functions of shapes. A step with both kinds of sequences runs both.

Per step, once for all layers: `attention_decode_plan`, `attention_prefill_plan`. Per layer: `attention_decode` and
`attention_prefill` (or `attention_prefill_hopper`, or `attention_prefill_few_hopper` and `attention_prefill_add`),
which write different rows of one result. The plans, the lengths, the page table and its width are read before the
wait for the launch before, and so is what earlier steps wrote to the cache: they must be complete before a chain of
dependent launches begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from oi.codegen.cuda.scratch import Array

__all__ = ["MOST_SEQUENCES", "AttentionShape", "Decode", "Prefill"]

MOST_SEQUENCES = 256
"""Of one plan: its programs hold all sequences at once."""


@dataclass(frozen=True)
class AttentionShape:
    """What an attention op of a model fixes; q is [T, q_heads, head_dim]."""

    q_heads: int
    kv_heads: int
    head_dim: int
    layers: int
    scale: float
    page: int = 16

    @property
    def group(self) -> int:
        """Query heads that share a KV head."""
        return self.q_heads // self.kv_heads

    def constants(self) -> dict[str, int | float]:
        return {
            "SCALE": self.scale,
            "L": self.layers,
            "Q": self.q_heads,
            "K": self.kv_heads,
            "B": self.page,
            "D": self.head_dim,
        }


@dataclass(frozen=True)
class Decode:
    """Launch of `attention_decode_hopper`, or where not `hopper` of `attention_decode`; see there."""

    hopper: bool
    block: int
    stages: int
    num_warps: int
    programs: int
    early: bool = True
    """Of `attention_decode_hopper`."""

    def plan_size(self, sequences: int) -> int:
        return 4 + sequences + self.programs

    def plan_constants(self, shape: AttentionShape) -> dict[str, int]:
        return {"S_BLOCK": MOST_SEQUENCES, "K": shape.kv_heads, "BLOCK": self.block, "PROGRAMS_BLOCK": 64}

    def constants(self, shape: AttentionShape) -> dict[str, int | float]:
        own = {"EARLY": self.early} if self.hopper else {}
        return {**shape.constants(), "BLOCK": self.block, "STAGES": self.stages, **own}

    def boxes(self, shape: AttentionShape) -> dict[str, tuple[int, ...]]:
        """Of the Hopper kernel's tensor descriptor: bf16, swizzled by 128 bytes."""
        return {"kv_desc": (shape.page, 64)}

    @property
    def max_registers(self) -> int | None:
        """Of a thread of the Hopper kernel: what it needs. More would keep other kernels off the multiprocessor."""
        return 96 if self.hopper else None

    def scratch(self, shape: AttentionShape, sequences: int) -> dict[str, Array]:
        """In the kernel's order. `arrivals` must be zero before the first launch."""
        return {
            "parts": ("f32", (2 * self.programs, shape.group, shape.head_dim)),
            "stats": ("f32", (2 * self.programs, shape.group)),
            "arrivals": ("i32", (sequences * shape.kv_heads,)),
        }


@dataclass(frozen=True)
class Prefill:
    """Launch of `attention_prefill_hopper`, or where not `hopper` of `attention_prefill`; see there.

    Where `few` too, of `attention_prefill_few_hopper` and `attention_prefill_add`.
    """

    hopper: bool
    block: int
    stages: int
    num_warps: int
    programs: int
    few: bool = False

    @property
    def rows(self) -> int:
        """Of a tile: tokens × the heads that share a KV head."""
        return 64 if self.few else 128

    @property
    def max_splits(self) -> int:
        return 64 if self.few else 16

    @property
    def split_overhead(self) -> float:
        """Blocks of keys that splitting a tile once more costs as much as."""
        return 0.1 if self.few else 1.5

    @property
    def max_registers(self) -> int | None:
        """Of a thread, as in Decode: what `few` needs."""
        return 128 if self.few else None

    def pack(self, shape: AttentionShape) -> int:
        """Rows of a token in a tile: all heads that share a KV head, or as many of them as need no filling up."""
        largest_power = shape.group & -shape.group
        return largest_power if self.hopper and not self.few else 1 << (shape.group - 1).bit_length()

    def tile(self, shape: AttentionShape) -> int:
        """Tokens of a tile."""
        return self.rows // self.pack(shape)

    def tiles(self, shape: AttentionShape, tokens: int, sequences: int) -> int:
        """Most tiles of a step."""
        return -(-tokens // self.tile(shape)) + sequences

    def plan_size(self, shape: AttentionShape, tokens: int, sequences: int) -> int:
        return 2 + self.tiles(shape, tokens, sequences)

    def plan_constants(self, shape: AttentionShape) -> dict[str, int | float]:
        return {
            "S_BLOCK": MOST_SEQUENCES,
            "TILE": self.tile(shape),
            "HEADS": shape.kv_heads * -(-shape.group // self.pack(shape)),
            "BLOCK": self.block,
            "MAX_SPLITS": self.max_splits,
            "OVERHEAD": self.split_overhead,
            "TILES_BLOCK": 64,
        }

    def constants(self, shape: AttentionShape) -> dict[str, int | float]:
        own = {"PACK": self.pack(shape)} if self.hopper else {"TILE": self.tile(shape)}
        return {**shape.constants(), **own, "BLOCK": self.block, "STAGES": self.stages}

    def add_constants(self, shape: AttentionShape) -> dict[str, int]:
        """Of `attention_prefill_add`."""
        return {
            "Q": shape.q_heads,
            "K": shape.kv_heads,
            "D": shape.head_dim,
            "PACK": self.pack(shape),
            "BLOCK": self.block,
            "ROWS": self.rows,
            "SOME": 4,
            "AT_ONCE": 16,
        }

    def boxes(self, shape: AttentionShape) -> dict[str, tuple[int, ...]]:
        """Of the Hopper kernels' tensor descriptors: bf16, swizzled by 128 bytes, zeros outside of the array."""
        pack = self.pack(shape)
        return {"q_desc": (64 // pack, pack, 64), "kv_desc": (shape.page, 64)}

    def scratch(self, shape: AttentionShape) -> dict[str, Array]:
        """In the kernel's order. `arrivals` must be zero before the first launch."""
        units = 4 * self.programs
        parts: dict[str, Array] = {
            "parts": ("f32", (units, self.rows, shape.head_dim)),
            "stats": ("f32", (units, 2, self.rows)),
        }
        return parts if self.few else {**parts, "arrivals": ("i32", (2 * units,))}
