"""Figures of a soak, minute by minute, and what is wrong with them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.serve.statistics import percentiles, ttft
from bench.soak.users import Answer

__all__ = ["GROWTH", "RULES", "Span", "faults", "figures", "show", "spans"]

GROWTH = 1.02
"""From the first minute to the last, resident memory may grow so much."""
RULES = (
    "closed loop; each minute's TTFT: of streamed requests sent in it, request sent to first event with a choice, also "
    "of those whose user left later; ITL: between two events of a request, the later of which came in it; e2e: of "
    "requests sent in it that were answered; RSS over the process tree, median of samples taken each second; a minute "
    "is an equal part of the whole, and the load begins before the first and ends after the last"
)
Sample = tuple[float, float]
"""`time.perf_counter()`, MB"""
_LATENCIES = ("ttft_ms", "itl_ms", "e2e_ms")


@dataclass(frozen=True)
class Span:
    """`time.perf_counter()`"""

    begin: float
    end: float

    def has(self, at: float) -> bool:
        return self.begin <= at < self.end


def spans(begin: float, minutes: float) -> list[Span]:
    """Minutes, or two halves of what is shorter."""
    n = max(2, round(minutes))
    seconds = minutes * 60 / n
    return [Span(begin + i * seconds, begin + (i + 1) * seconds) for i in range(n)]


def figures(
    answers: Sequence[Answer], alone: Sequence[Sequence[int]], rss: Sequence[Sample], minutes: Sequence[Span]
) -> dict[str, Any]:
    """`alone` are the probes' answers without load; `rss` is empty where the server's memory cannot be seen."""
    rows = [_minute(answers, rss, span) for span in minutes]
    first, last = rows[0], rows[-1]
    middle = minutes[len(minutes) // 2].begin
    halves = [Span(minutes[0].begin, middle), Span(middle, minutes[-1].end)]
    failed = [a.record for a in answers if a.record.failure is not None]
    return {
        "requests": {
            "sent": len(answers),
            "answered": sum(a.record.failure is None and not a.left for a in answers),
            "left": sum(a.left for a in answers),
            "failed": len(failed),
            "failures": dict(Counter(r.failure for r in failed)),
            "messages": {r.failure: r.message for r in failed},
            "streamed": sum(a.streamed for a in answers),
        },
        "minutes": rows,
        "last_to_first": _ratios(last, first),
        "second_half_to_first": _ratios(*(_minute(answers, rss, half) for half in reversed(halves))),
        "rss": {
            "first_mb": first["rss_mb"],
            "last_mb": last["rss_mb"],
            "ratio": _ratio(last["rss_mb"], first["rss_mb"]),
            "peak_mb": max((mb for _, mb in rss), default=None),
        },
        "greedy": _greedy(answers, alone),
    }


def faults(result: dict[str, Any], *, exact: bool) -> list[str]:
    """What a sound server does not show; with `exact`, greedy answers that differ from those alone are among it."""
    found = []
    requests, after, greedy = result["requests"], result["after"], result["greedy"]
    if requests["failed"]:
        kinds = ", ".join(f"{n} {kind}" for kind, n in requests["failures"].items())
        found.append(f"{requests['failed']} requests failed: {kinds}")
    if not requests["answered"]:
        found.append("no request was answered")
    growth = result["rss"]["ratio"]
    if growth is not None and growth > GROWTH:
        found.append(f"resident memory grew {growth:.4g} times")
    found += [f"{n:g} {what} {after['waited_s']:g} s after the load" for what, n in after["left_behind"].items() if n]
    if exact and greedy["differ"]:
        found.append(f"{greedy['asked'] - greedy['equal']} greedy answers are not those alone")
    return found


def show(result: dict[str, Any]) -> None:
    console = Console()
    view = Table("minute", title="ms at p50/p99", box=box.SIMPLE)
    for column in ("requests", "TTFT", "ITL", "e2e", "RSS, MB"):
        view.add_column(column, justify="right")
    for i, row in enumerate(result["minutes"]):
        spread = [_spread(row[what]) for what in _LATENCIES]
        view.add_row(str(i + 1), str(row["requests"]), *spread, _number(row["rss_mb"], 1))
    for name, key in (("last / first", "last_to_first"), ("2nd / 1st half", "second_half_to_first")):
        ratios = result[key]
        spread = ["/".join(_number(ratios[f"{w}_{p}"], 2) for p in ("p50", "p99")) for w in _LATENCIES]
        view.add_row(name, "", *spread, _number(ratios["rss"], 4))
    console.print(view)
    requests, greedy, after = result["requests"], result["greedy"], result["after"]
    console.print(
        f"{requests['sent']} requests: {requests['answered']} answered, {requests['left']} left by their users, "
        f"{requests['failed']} failed {requests['failures'] or ''}"
    )
    console.print(f"RSS peak {_number(result['rss']['peak_mb'], 1)} MB; {_left_behind(after)}", highlight=False)
    console.print(f"greedy answers under load: {greedy['equal']} of {greedy['asked']} as alone")
    for other in greedy["differ"]:
        console.print(
            f"  prompt {other['prompt']}: another at token {other['at']} of {other['of']}, {other['n']} times"
        )
    for fault in result["faults"]:
        console.print(f"[bold red]FAULT[/] {fault}", highlight=False)


def _minute(answers: Sequence[Answer], rss: Sequence[Sample], span: Span) -> dict[str, Any]:
    sent = [a for a in answers if span.has(a.record.sent)]
    streamed = [a.record for a in answers if a.streamed]
    whole = [a.record for a in sent if a.record.failure is None and not a.left]
    memory = [mb for at, mb in rss if span.has(at)]
    return {
        "requests": len(sent),
        "prompt_tokens": sum(r.prompt_tokens for r in whole),
        "completion_tokens": sum(r.completion_tokens for r in whole),
        "ttft_ms": percentiles([t for a in sent if a.streamed and (t := ttft(a.record)) is not None]),
        "itl_ms": percentiles([(b - a) * 1e3 for r in streamed for a, b in pairwise(r.chunks) if span.has(b)]),
        "e2e_ms": percentiles([(r.ended - r.sent) * 1e3 for r in whole]),
        "rss_mb": round(statistics.median(memory), 1) if memory else None,
    }


def _ratios(later: dict[str, Any], earlier: dict[str, Any]) -> dict[str, float | None]:
    return {
        f"{what}_{p}": _ratio(later[what] and later[what][p], earlier[what] and earlier[what][p])
        for what in _LATENCIES
        for p in ("p50", "p99")
    } | {"rss": _ratio(later["rss_mb"], earlier["rss_mb"])}


def _greedy(answers: Sequence[Answer], alone: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Where answers to probes part from those alone."""
    asked = [(a.probe, a.record.token_ids) for a in answers if a.probe is not None and not (a.left or a.record.failure)]
    parted = Counter((n, at) for n, ids in asked if (at := _parts(ids, alone[n])) is not None)
    return {
        "prompts": len(alone),
        "asked": len(asked),
        "equal": len(asked) - parted.total(),
        "differ": [
            {"prompt": prompt, "at": at, "of": len(alone[prompt]), "n": n} for (prompt, at), n in sorted(parted.items())
        ],
    }


def _parts(a: Sequence[int], b: Sequence[int]) -> int | None:
    """The first place at which they differ."""
    if list(a) == list(b):
        return None
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _ratio(a: float | None, b: float | None) -> float | None:
    return round(a / b, 4) if a is not None and b else None


def _left_behind(after: dict[str, Any]) -> str:
    if not after["left_behind"]:
        return "the server has no metrics that say what is left behind"
    left = ", ".join(f"{n:g} {what}" for what, n in after["left_behind"].items())
    return f"{after['waited_s']:g} s after the load: {left}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _spread(spread: dict[str, float] | None) -> str:
    return "–" if spread is None else "/".join(_short(spread[p]) for p in ("p50", "p99"))


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
