"""attention: decode at several contexts, prefill of a whole prompt, a chunk after a long prefix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bench.kernels.cpu.conftest import Measure
from bench.kernels.cpu.launch import THREADS, f32, i32, launch
from bench.kernels.cpu.shapes import DIM, KV_HEADS, PAGE, Q_HEADS
from oi.ir import ops
from oi.ir.types import N, P, S, T


def _launch(lens: Sequence[int], contexts: Sequence[int]):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng()
    counts = [-(-c // PAGE) for c in contexts]
    pages, used = rng.permutation(sum(counts)), 0
    table = np.zeros((len(lens), max(counts)))
    for s, count in enumerate(counts):
        table[s, :count] = pages[used : used + count]
        used += count
    return launch(
        ops.Attention(layer=0, scale=DIM**-0.5),
        f32(rng.standard_normal((sum(lens), Q_HEADS, DIM)), T),
        f32(rng.standard_normal((len(pages), 1, 2, KV_HEADS, PAGE, DIM), np.float32), N),
        i32(np.cumsum([0, *lens[:-1]]), S),
        i32(np.array(lens), S),
        i32(np.array(contexts), S),
        i32(table, S, P),
    )


@pytest.mark.parametrize(("sequences", "context"), [(1, 1024), (1, 16384), (16, 1024)])
def test_attention_decode(measure: Measure, sequences: int, context: int) -> None:
    call = _launch([1] * sequences, [context] * sequences)
    measure(call, bytes=sequences * context * 2 * KV_HEADS * DIM * 4)


@pytest.mark.parametrize(("length", "context"), [(256, 256), (512, 4096), (2048, 2048)])
def test_attention_prefill(measure: Measure, length: int, context: int) -> None:
    pairs = sum(range(context - length + 1, context + 1))
    torch.set_num_threads(THREADS)
    q, k, v = (torch.randn(1, Q_HEADS, length, DIM) for _ in range(3))

    def sdpa() -> object:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    call = _launch([length], [context])
    measure(call, flop=4 * Q_HEADS * DIM * pairs, torch=sdpa if length == context else None)
