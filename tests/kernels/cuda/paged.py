"""Ragged queries over a paged cache, attention on them in float64, and what a launch of it must show.

Everything that a kernel must not read is NaN.
"""

from __future__ import annotations

import random

import torch

from oi.codegen.cuda.tuning.attention_launch import AttentionCall, DecodeLaunch, PrefillLaunch
from tests.kernels.cuda.triton_device import ROUNDING, relative_error

PAGE = 16


def make_call(
    query_lens: list[int],
    context_lens: list[int],
    *,
    device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    heads: tuple[int, int] = (32, 8),
    head_dim: int = 128,
    layers: int = 2,
    layer: int = 1,
    spare_tokens: int = 0,
    spare_pages: int = 0,
    poison: bool = True,
) -> AttentionCall:
    """Random queries and cache on shuffled pages. Slots outside of the contexts are NaN if `poison`.

    A sequence of length 0 is padding: it starts at any row. Tables are `spare_pages` wider than the longest context,
    and name page -1 behind each sequence's last; that page is NaN too.
    """
    q_heads, kv_heads = heads
    pages = [-(-c // PAGE) for c in context_lens]
    used = sum(pages)
    order = torch.randperm(used + 3, device=device).to(torch.int32)
    table = torch.full((len(pages), max(*pages, 1) + spare_pages), -1, dtype=torch.int32, device=device)
    kv = torch.randn((used + 4, layers, 2, kv_heads, PAGE, head_dim), dtype=dtype, device=device)
    if poison:
        kv[0] = torch.nan
    kv = kv[1:]
    if poison:
        kv[order[used:].long()] = torch.nan
    first = 0
    for s, count in enumerate(pages):
        table[s, :count] = order[first : first + count]
        first += count
        if poison and count:
            kv[table[s, count - 1].long(), :, :, :, context_lens[s] - (count - 1) * PAGE :] = torch.nan
    q = torch.randn((sum(query_lens) + spare_tokens, q_heads, head_dim), dtype=dtype, device=device)
    q[sum(query_lens) :] = torch.nan

    def ints(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    starts = [sum(query_lens[:s]) if n else random.randrange(max(1, len(q))) for s, n in enumerate(query_lens)]
    width = ints([table.shape[1]])
    return AttentionCall(q, kv, ints(starts), ints(query_lens), ints(context_lens), table, width, layer)


def random_mix(decodes: int, prefills: int, padding: int, longest: int) -> tuple[list[int], list[int]]:
    """(query_lens, context_lens) in random order; many contexts end at or beside the end of a page or a block."""
    ends = [e + by for e in (16, 32, 64, 128, 192, 256) for by in (-1, 0, 1) if e + by <= longest]
    sequences = [(0, 0)] * padding
    for i in range(decodes + prefills):
        context = random.choice(ends) if random.random() < 0.5 else random.randint(2, longest)
        sequences.append((1 if i < decodes else random.choice((2, context, random.randint(2, context))), context))
    random.shuffle(sequences)
    return [n for n, _ in sequences], [c for _, c in sequences]


def reference(call: AttentionCall, *, decode: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(y in float64, which rows belong to sequences with one query (`decode`) or with more)."""
    y = torch.zeros(call.q.shape, dtype=torch.float64, device=call.q.device)
    rows = torch.zeros(call.q.shape[0], dtype=torch.bool, device=call.q.device)
    for s in range(call.sequences):
        start, count, context = (int(x[s]) for x in (call.query_starts, call.query_lens, call.context_lens))
        if count == 0 or decode != (count == 1):
            continue
        pages = call.page_table[s, : -(-context // PAGE)].long()
        k, v = (call.kv[pages, call.layer, i].transpose(0, 1).flatten(1, 2)[:, :context].double() for i in (0, 1))
        k, v = (x.repeat_interleave(call.shape.group, 0) for x in (k, v))
        q = call.q[start : start + count].double().transpose(0, 1)
        scores = q @ k.transpose(1, 2) * call.shape.scale
        position = torch.arange(context - count, context, device=q.device)
        scores.masked_fill_(torch.arange(context, device=q.device)[None] > position[:, None], -torch.inf)
        y[start : start + count] = (scores.softmax(-1) @ v).transpose(0, 1)
        rows[start : start + count] = True
    return y, rows


def check_attention(launch: DecodeLaunch | PrefillLaunch, *, decode: bool) -> None:
    """Right, of the step's rows of that kind only, twice the same."""
    launch.plan()
    launch.run()
    expected, own = reference(launch.call, decode=decode)
    if own.any():
        assert relative_error(launch.y[own], expected[own]) < ROUNDING
    assert launch.y[~own].isnan().all(), "rows of other sequences were written"
    first = launch.y.clone()
    launch.y.fill_(torch.nan)
    launch.run()
    assert torch.equal(launch.y[own], first[own]), "two runs differ"
