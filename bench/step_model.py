"""What a step costs, out of the figures of `bench.step`: for simulating, where no GPU is.

    seconds = base(tokens) + κ · keys + π · pairs

`base` is interpolated between what was measured: decode steps and prefills, with attention taken out. κ, what a key
costs that a decode row reads, is fitted to the decode steps; π, what a pair of a chunk's query and an earlier key
costs, follows from the longest prefill, whose chunks are like another row's and differ from it only in their pairs. A
chunk beside decode rows was not measured: its costs are taken to add up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from oi.runtime.batch import Batch

__all__ = ["StepModel"]


class StepModel:
    """Of one GPU and one model."""

    def __init__(self, result: dict[str, Any], token_buckets: Sequence[int]) -> None:
        """`result`: a step.json. Steps with a chunk are padded to `token_buckets`; decode steps to nothing."""
        self._buckets = list(token_buckets)
        decode, prefill = result["decode"], result["prefill"]
        rows = sorted({row["batch"] for row in decode})
        keys = [row["batch"] * row["context"] for row in decode]
        equations = np.array([[*(row["batch"] == r for r in rows), k] for row, k in zip(decode, keys, strict=True)])
        *bases, self._key = np.linalg.lstsq(equations, np.array([row["seconds"] for row in decode]))[0]
        self._decode = np.array(rows), np.array(bases)

        longest, chunk = prefill[-1], prefill[-2]
        chunks = longest["tokens"] // chunk["tokens"]
        more_pairs = _pairs(longest["tokens"]) - chunks * _pairs(chunk["tokens"])
        self._pair = (longest["seconds"] - chunks * chunk["seconds"]) / more_pairs
        sizes = [row["tokens"] for row in prefill[:-1]]
        forward = [row["seconds"] - self._pair * _pairs(row["tokens"]) for row in prefill[:-1]]
        self._forward = np.array([1, *sizes]), np.array([self._decode[1][0], *forward])

    def seconds(self, batch: Batch) -> float:
        lens, contexts = batch.query_lens.astype(np.int64), batch.context_lens.astype(np.int64)
        alone = lens == 1
        keys = int(contexts[alone].sum())
        chunk, context = lens[~alone], contexts[~alone]
        pairs = int((chunk * (2 * context - chunk + 1)).sum()) // 2
        total = int(lens.sum())
        if len(batch.rows) == total:
            base = np.interp(total, *self._decode)
        else:
            base = np.interp(self._buckets[bisect_left(self._buckets, total)], *self._forward)
        return float(base + self._key * keys + self._pair * pairs)


def _pairs(tokens: int) -> int:
    return tokens * (tokens + 1) // 2
