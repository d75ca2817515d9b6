"""attention: decode, prefill, chunks and any mixture of them, over shuffled pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from oi.codegen.cpu.target import CpuTarget
from oi.ir import ops
from oi.ir.types import N, P, S, T
from tests.kernels.cpu.harness import TARGETS, Operand, f32, i32, reference, run

LAYERS = 2
MIXTURES: list[tuple[Sequence[int], Sequence[int]]] = [
    ([1], [1]),
    ([1, 1, 1], [17, 128, 300]),
    ([150], [150]),
    ([70, 1, 0, 5], [333, 40, 7, 5]),
    ([2, 130, 1], [2, 258, 129]),
]
"""Query lengths and context lengths."""


def _case(
    rng: np.random.Generator, lens: Sequence[int], contexts: Sequence[int], heads: tuple[int, int], page: int, size: int
) -> list[Operand]:
    """Rows of no sequence at the end, page numbers in random order, poison behind each sequence's last page."""
    q_heads, kv_heads = heads
    tokens, counts = sum(lens) + 3, [-(-c // page) for c in contexts]
    pages = rng.permutation(sum(counts) + 2)
    table, used = np.full((len(lens), max(counts) + 2), 2**30), 0
    for s, count in enumerate(counts):
        table[s, :count] = pages[used : used + count]
        used += count
    kv = rng.standard_normal((len(pages), LAYERS, 2, kv_heads, page, size))
    kv[pages[used:]] = np.nan
    for s, context in enumerate(contexts):
        if context % page:
            kv[table[s, context // page], :, :, :, context % page :] = np.nan
    starts = np.cumsum([0, *lens[:-1]])
    return [
        f32(2 * rng.standard_normal((tokens, q_heads, size)), T),
        f32(kv, N),
        *(i32(np.array(a), S) for a in (starts, lens, contexts)),
        i32(table, S, P),
    ]


@pytest.mark.parametrize(
    ("heads", "page", "size"),
    [((16, 8), 16, 128), ((6, 2), 5, 40), ((3, 1), 4, 9)],
    ids=["qwen3", "odd", "smaller than a vector"],
)
@pytest.mark.parametrize("target", TARGETS[:2])
def test_mixtures(target: CpuTarget, heads: tuple[int, int], page: int, size: int) -> None:
    rng = np.random.default_rng()
    op = ops.Attention(layer=1, scale=size**-0.5)
    for lens, contexts in MIXTURES:
        operands = _case(rng, lens, contexts, heads, page, size)
        (found,), (expected,) = run(target, op, *operands), reference(op, *operands)
        owned = sum(lens)
        np.testing.assert_allclose(found[:owned], expected[:owned], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("target", TARGETS[:1])
def test_sharp_softmax(target: CpuTarget) -> None:
    """Scores in the hundreds, growing with position: every block raises the maximum."""
    rng = np.random.default_rng()
    op = ops.Attention(layer=1, scale=16.0)
    operands = _case(rng, [200, 1], [200, 300], (6, 2), 5, 40)
    (found,), (expected,) = run(target, op, *operands), reference(op, *operands)
    assert np.isfinite(found[:201]).all()
    np.testing.assert_allclose(found[:201], expected[:201], atol=2e-2)
