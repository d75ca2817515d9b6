"""Ragged queries over a paged cache: inputs, a float64 reference, and launches of the attention kernels.

Shapes are those of ir/ops/attention.py. Everything that a kernel must not read is NaN, and so is the result before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from oi.codegen.cuda.kernels.attention_decode import attention_decode
from oi.codegen.cuda.kernels.attention_decode_plan import attention_decode_plan
from oi.codegen.cuda.kernels.attention_prefill import attention_prefill
from oi.codegen.cuda.kernels.attention_prefill_plan import attention_prefill_plan

B = 16  # tokens a page


@dataclass
class Case:
    """One layer's attention call."""

    q: torch.Tensor
    kv: torch.Tensor
    query_starts: torch.Tensor
    query_lens: torch.Tensor
    context_lens: torch.Tensor
    page_table: torch.Tensor
    layer: int

    @property
    def heads(self) -> tuple[int, int]:
        return self.q.shape[1], self.kv.shape[3]

    @property
    def scale(self) -> float:
        return float(self.q.shape[2] ** -0.5)


def make_case(
    query_lens: list[int],
    context_lens: list[int],
    *,
    device: str,
    heads: tuple[int, int] = (32, 8),
    head_dim: int = 128,
    layers: int = 2,
    layer: int = 1,
    spare_tokens: int = 0,
    poison: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    generator: torch.Generator | None = None,
) -> Case:
    """Random queries and cache; pages are shuffled. Slots outside of the contexts are NaN if `poison`."""
    q_heads, kv_heads = heads
    pages = [-(-c // B) for c in context_lens]
    total = sum(pages) + 3
    order = torch.randperm(total, generator=generator, device=device).to(torch.int32)
    table = torch.full((len(pages), max(max(pages), 1)), -1, dtype=torch.int32, device=device)
    kv = torch.randn((total, layers, 2, kv_heads, B, head_dim), dtype=dtype, device=device)
    used = 0
    if poison:
        kv[order[sum(pages) :].long()] = float("nan")
    for s, count in enumerate(pages):
        table[s, :count] = order[used : used + count]
        used += count
        if poison and count:
            kv[table[s, count - 1].long(), :, :, :, context_lens[s] - (count - 1) * B :] = float("nan")
    starts = [sum(query_lens[:s]) for s in range(len(query_lens))]
    tokens = sum(query_lens) + spare_tokens
    q = torch.randn((tokens, q_heads, head_dim), dtype=dtype, device=device)
    q[sum(query_lens) :] = float("nan")

    def ints(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    return Case(q, kv, ints(starts), ints(query_lens), ints(context_lens), table, layer)


def reference(case: Case, only: str = "all") -> tuple[torch.Tensor, torch.Tensor]:
    """(y in float64, rows that belong to sequences of the kind `only`: all, decode or prefill)."""
    q_heads, kv_heads = case.heads
    y = torch.zeros(case.q.shape, dtype=torch.float64, device=case.q.device)
    rows = torch.zeros(case.q.shape[0], dtype=torch.bool, device=case.q.device)
    for s in range(len(case.query_lens)):
        start, count, context = (int(x[s]) for x in (case.query_starts, case.query_lens, case.context_lens))
        if count == 0 or (only == "decode" and count != 1) or (only == "prefill" and count == 1):
            continue
        pages = case.page_table[s, : -(-context // B)].long()
        k, v = (
            case.kv[pages, case.layer, i].transpose(0, 1).reshape(kv_heads, -1, case.q.shape[2])[:, :context].double()
            for i in (0, 1)
        )
        k, v = (x.repeat_interleave(q_heads // kv_heads, 0) for x in (k, v))
        q = case.q[start : start + count].double().transpose(0, 1)
        scores = q @ k.transpose(1, 2) * case.scale
        position = torch.arange(context - count, context, device=q.device)
        scores.masked_fill_(torch.arange(context, device=q.device)[None] > position[:, None], float("-inf"))
        y[start : start + count] = (scores.softmax(-1) @ v).transpose(0, 1)
        rows[start : start + count] = True
    return y, rows


@dataclass
class Decode:
    """The decode kernel with its plan and scratch for a case."""

    case: Case
    block: int = 64
    stages: int = 3
    warps: int = 4
    programs: int = 264
    pdl: bool = False

    def __post_init__(self) -> None:
        q_heads, kv_heads = self.case.heads
        device, dim, sequences = self.case.q.device, self.case.q.shape[2], len(self.case.query_lens)
        group = q_heads // kv_heads
        self.y = torch.full_like(self.case.q, float("nan"))
        self.plan_buffer = torch.full((3 + sequences + self.programs,), -(10**9), dtype=torch.int32, device=device)
        self.parts = torch.full((2 * self.programs, group, dim), float("nan"), device=device)
        self.stats = torch.full((2 * self.programs, 2, group), float("nan"), device=device)
        self.arrivals = torch.zeros(sequences * kv_heads, dtype=torch.int32, device=device)

    def plan(self) -> None:
        sequences = len(self.case.query_lens)
        attention_decode_plan[(1,)](
            self.case.query_lens,
            self.case.context_lens,
            self.plan_buffer,
            sequences,
            self.programs,
            S_BLOCK=256,
            K=self.case.heads[1],
            BLOCK=self.block,
            PROGRAMS_BLOCK=64,
            num_warps=8,
        )

    def run(self) -> None:
        case = self.case
        options = {"launch_pdl": True} if self.pdl else {}
        attention_decode[(self.programs,)](
            case.q,
            case.kv,
            case.query_starts,
            case.context_lens,
            case.page_table,
            self.plan_buffer,
            self.y,
            self.parts,
            self.stats,
            self.arrivals,
            case.layer,
            len(case.query_lens),
            case.page_table.shape[1],
            SCALE=case.scale,
            L=case.kv.shape[1],
            Q=case.heads[0],
            K=case.heads[1],
            B=B,
            D=case.q.shape[2],
            BLOCK=self.block,
            STAGES=self.stages,
            PDL=self.pdl,
            num_warps=self.warps,
            **options,
        )


@dataclass
class Prefill:
    """A prefill kernel with its plan and scratch for a case. `pack` None: the portable kernel."""

    case: Case
    block: int = 64
    stages: int = 2
    warps: int = 8
    programs: int = 132
    tokens_per_tile: int = 32
    pack: int | None = None
    pdl: bool = False
    max_splits: int = 16

    def __post_init__(self) -> None:
        q_heads, kv_heads = self.case.heads
        device, dim = self.case.q.device, self.case.q.shape[2]
        packs = kv_heads if self.pack is None else q_heads // self.pack
        self.packs = packs
        if self.pack is not None:
            self.tokens_per_tile = 128 // self.pack
        rows = self.tokens_per_tile * (triton.next_power_of_2(q_heads // kv_heads) if self.pack is None else self.pack)
        self.tiles = -(-self.case.q.shape[0] // self.tokens_per_tile) + len(self.case.query_lens)
        units = 4 * self.programs
        self.y = torch.full_like(self.case.q, float("nan"))
        self.plan_buffer = torch.full((2 + self.tiles,), -(10**9), dtype=torch.int32, device=device)
        self.parts = torch.full((units, rows, dim), float("nan"), device=device)
        self.stats = torch.full((units, 2, rows), float("nan"), device=device)
        self.arrivals = torch.zeros(2 * units, dtype=torch.int32, device=device)
        if self.pack is not None:
            from triton.experimental.gluon import language as gl
            from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

            box = gl.NVMMASharedLayout(128, 16, rank=3)
            page = gl.NVMMASharedLayout(128, 16, rank=2)
            self.q_desc = TensorDescriptor.from_tensor(self.case.q, [64 // self.pack, self.pack, 64], box)
            self.kv_desc = TensorDescriptor.from_tensor(self.case.kv.view(-1, dim), [B, 64], page)

    def plan(self) -> None:
        sequences = len(self.case.query_lens)
        attention_prefill_plan[(1,)](
            self.case.query_lens,
            self.case.context_lens,
            self.plan_buffer,
            sequences,
            self.programs,
            self.tiles,
            S_BLOCK=256,
            TILE=self.tokens_per_tile,
            HEADS=self.packs,
            BLOCK=self.block,
            MAX_SPLITS=self.max_splits,
            OVERHEAD=1.5,
            TILES_BLOCK=64,
            num_warps=8,
        )

    def run(self) -> None:
        case = self.case
        options = {"launch_pdl": True} if self.pdl else {}
        lengths = (case.query_starts, case.query_lens, case.context_lens, case.page_table, self.plan_buffer)
        scratch = (self.y, self.parts, self.stats, self.arrivals, case.layer, case.page_table.shape[1])
        constants = {
            "SCALE": case.scale,
            "L": case.kv.shape[1],
            "Q": case.heads[0],
            "K": case.heads[1],
            "B": B,
            "D": case.q.shape[2],
            "BLOCK": self.block,
            "STAGES": self.stages,
            "PDL": self.pdl,
        }
        if self.pack is None:
            attention_prefill[(self.programs,)](
                case.q, case.kv, *lengths, *scratch, TILE=self.tokens_per_tile, **constants, num_warps=self.warps, **options
            )
        else:
            from oi.codegen.cuda.kernels.attention_prefill_hopper import attention_prefill_hopper

            attention_prefill_hopper[(self.programs,)](
                self.q_desc, self.kv_desc, *lengths, *scratch, PACK=self.pack, **constants, num_warps=4, **options
            )


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found - expected‖ / ‖expected‖; NaN where anything was not written."""
    return float((found.double() - expected).norm() / expected.norm())
