"""Figures out of records. Nothing is dropped: see `summary`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bench.serve.client import Record
from bench.serve.load import Load

__all__ = ["RULES", "percentiles", "summary", "ttft"]

RULES = (
    "TTFT: request sent to the first event with a choice; TPOT: (last - first) / (tokens - 1), tokens by the server's "
    "usage; ITL: between two events of a request; e2e: sent to the last event. Failures are listed by kind, and what "
    "they delivered counts; a request that timed out counts with the time waited for what did not come. Throughput: "
    "all tokens delivered, from the first request due to the last end"
)


def percentiles(milliseconds: Sequence[float]) -> dict[str, float] | None:
    """None where there is no sample."""
    if not milliseconds:
        return None
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    figures = {"p50": p50, "p90": p90, "p99": p99, "mean": np.mean(milliseconds), "max": max(milliseconds)}
    return {name: round(float(value), 3) for name, value in figures.items()}


def ttft(record: Record) -> float | None:
    """Milliseconds; of a request that timed out before its first token, how long it waited; None of other failures."""
    if record.chunks:
        return (record.chunks[0] - record.sent) * 1e3
    return _waited(record)


def summary(load: Load) -> dict[str, Any]:
    """Of one level, by `RULES`."""
    records = load.records
    seconds = max(r.ended for r in records) - min(r.due for r in records)
    answered = [r for r in records if r.failure is None]
    tokens_out = sum(r.completion_tokens or len(r.chunks) for r in records)
    cached = [r.cached_tokens for r in answered if r.cached_tokens is not None]
    return {
        "n": len(records),
        "failed": len(records) - len(answered),
        "failures": dict(Counter(r.failure for r in records if r.failure)),
        "messages": {r.failure: r.message for r in records if r.failure},
        "seconds": round(seconds, 3),
        "req_s": round(len(answered) / seconds, 3),
        "in_tok_s": round(sum(r.prompt_tokens for r in records) / seconds, 1),
        "out_tok_s": round(tokens_out / seconds, 1),
        "ttft_ms": percentiles([t for r in records if (t := ttft(r)) is not None]),
        "tpot_ms": percentiles([t for r in records if (t := _tpot(r)) is not None]),
        "itl_ms": percentiles([gap for r in records for gap in _gaps(r)]),
        "e2e_ms": percentiles([t for r in records if (t := _e2e(r)) is not None]),
        "prompt_tokens": sorted({r.prompt_tokens for r in answered}),
        "cached_tokens": sum(cached) if cached else None,
        "tokens_per_event": round(tokens_out / max(1, sum(len(r.chunks) for r in records)), 3),
        "sent_late_ms": percentiles([(r.sent - r.due) * 1e3 for r in records]),
        "client_cpu": round(load.client_seconds / seconds, 3),
    }


def _waited(record: Record) -> float | None:
    return (record.ended - record.sent) * 1e3 if record.failure == "timeout" else None


def _tpot(record: Record) -> float | None:
    if record.failure is not None or record.completion_tokens < 2:
        return None
    return (record.chunks[-1] - record.chunks[0]) * 1e3 / (record.completion_tokens - 1)


def _gaps(record: Record) -> list[float]:
    gaps = [(b - a) * 1e3 for a, b in pairwise(record.chunks)]
    if record.failure == "timeout" and record.chunks:
        gaps.append((record.ended - record.chunks[-1]) * 1e3)
    return gaps


def _e2e(record: Record) -> float | None:
    if record.failure is None:
        return (record.chunks[-1] - record.sent) * 1e3
    return _waited(record)
