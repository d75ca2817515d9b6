"""The sizes of a step that graphs are captured for.

A graph is 2 MB of the host's memory and 5 ms of the start. Products of few rows are bound by reading weights, so
decode steps between two buckets lose next to nothing; those of prefill are bound by their padding.
"""

from __future__ import annotations

from oi.codegen.cuda.kernels.attention import MOST_SEQUENCES
from oi.codegen.cuda.tuning.gemm_table import MOST_F32_ROWS
from oi.codegen.errors import CompileError
from oi.runtime.cuda_library import Buckets
from oi.runtime.manifest import Limits

__all__ = ["buckets_of"]

_MOST_SEQUENCES = min(MOST_SEQUENCES, MOST_F32_ROWS)
"""Attention plans for no more at once, and logits have no more rows."""

_DECODE_ROWS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 224)
_TOKENS = (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


def buckets_of(limits: Limits) -> Buckets:
    """Raises CompileError for limits that no kernel is made for."""
    if limits.max_sequences > _MOST_SEQUENCES:
        raise CompileError(
            f"a GPU's step advances at most {_MOST_SEQUENCES} sequences, asked for {limits.max_sequences}: "
            f"give --max-sequences {_MOST_SEQUENCES} or fewer"
        )
    if limits.max_tokens < limits.max_sequences:
        raise CompileError(
            f"a step of {limits.max_tokens} tokens cannot advance {limits.max_sequences} sequences: "
            f"raise --max-tokens or lower --max-sequences"
        )
    return Buckets(
        decode_rows=_up_to(limits.max_sequences, _DECODE_ROWS),
        tokens=_up_to(limits.max_tokens, _TOKENS),
        rows=_up_to(limits.max_sequences, _ROWS),
    )


def _up_to(last: int, sizes: tuple[int, ...]) -> list[int]:
    return [*(size for size in sizes if size < last), last]
