"""The tables of a server's figures, each as data."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.serve import pagecache, prompts
from bench.serve.client import Record
from bench.serve.load import Clients, Load, poisson
from bench.serve.server import OwnServer, Served, first_token
from bench.serve.statistics import percentiles, summary, ttft
from bench.serve.worker import ClosedLoop, OpenLoop, Series, Target, Work

__all__ = ["Bench", "Table", "closed_loop", "host_restore", "qps_sweep", "start", "warm_prefix"]

Table = dict[str, Any]
"""`rows`, or `skipped` with the reason."""

_FLUSH_LENGTH = 4096
_FLUSH_MARGIN = 1.1
"""Flushing prompts are this much more than the pool holds."""


@dataclass(frozen=True)
class Bench:
    """A server under test, and who asks it."""

    target: Target
    server: Served
    clients: Clients
    announce: Callable[[str], None]
    """Called with the name of what is measured next."""

    def fresh(self, tokens: int, output: int = 1) -> bytes:
        return prompts.body(self.target.model, self.target.words, tokens, output, random.SystemRandom())

    def run(self, *works: Work) -> Load:
        return self.clients.run(self.target, works)

    def too_long(self, tokens: int) -> str | None:
        """Why a request of so many tokens, prompt and answer, cannot be served."""
        longest = self.server.max_model_len
        return None if longest is None or tokens <= longest else f"the server takes {longest} tokens"


def start(arguments: list[str], checkpoint: Path, first: bytes, rounds: int, announce: Callable[[str], None]) -> Table:
    """Seconds from exec to /health 200 and to the first token of a request sent then, page cache warm and cold."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file())
    announce("start: compiles what is missing")
    _start_once(arguments, first)
    warm = []
    for i in range(rounds):
        announce(f"start, page cache warm, {i + 1} of {rounds}")
        pagecache.fill(files)
        warm.append(_start_once(arguments, first))
    cold, reason = [], None
    for i in range(rounds):
        announce(f"start, page cache cold, {i + 1} of {rounds}")
        if reason := pagecache.drop(files):
            break
        cold.append(_start_once(arguments, first))
    pagecache.fill(files)
    return {
        "what": "exec to /health 200, asked each 10 ms, and to the first token of a request sent then; cold: the "
        "checkpoint's files dropped from the page cache",
        "warm": _medians(warm),
        "cold": {"skipped": reason} if reason else _medians(cold),
        "rounds": {"warm": warm, "cold": cold},
    }


def qps_sweep(bench: Bench, rates: Sequence[float], seconds: float, input: int, output: int) -> Table:
    """Poisson arrivals; arrivals and prompts are drawn anew for each rate."""
    rows = []
    if reason := bench.too_long(input + output):
        return {"skipped": reason}
    for rate in rates:
        bench.announce(f"{rate:g} requests a second")
        seed = random.SystemRandom().getrandbits(48)
        arrivals = poisson(rate, max(1, round(rate * seconds)), random.Random(seed))
        works = [OpenLoop(part, input, output, seed + 1 + i) for i, part in enumerate(bench.clients.deal(arrivals))]
        rows.append({"qps": rate, "seed": seed, **summary(bench.run(*works))})
    return {"input_len": input, "output_len": output, "arrivals": "Poisson", "rows": rows}


def closed_loop(bench: Bench, levels: Sequence[int], seconds: float, input: int, output: int) -> Table:
    """So many users, each sending the next request when the last is answered; none after `seconds`, all are awaited."""
    rows = []
    if reason := bench.too_long(input + output):
        return {"skipped": reason}
    for users in levels:
        bench.announce(f"{users} users")
        seed = random.SystemRandom().getrandbits(48)
        works = [
            ClosedLoop(share, seconds, input, output, seed + i) for i, share in enumerate(bench.clients.share(users))
        ]
        rows.append({"concurrency": users, "seed": seed, **summary(bench.run(*works))})
    return {"input_len": input, "output_len": output, "rows": rows}


def warm_prefix(bench: Bench, lengths: Sequence[int], repeats: int) -> Table:
    """A fresh prompt of each length once, then the same again."""
    rows = []
    for length in lengths:
        if reason := bench.too_long(length + 1):
            rows.append({"len": length, "skipped": reason})
            continue
        bench.announce(f"warm prefix of {length} tokens")
        same = Series([bench.fresh(length)] * (1 + repeats))
        rows.append({"len": length, **_again(bench.run(same).records, "warm_ms")})
    return {"repeats": repeats, "rows": rows}


def host_restore(bench: Bench, lengths: Sequence[int], repeats: int, pool_tokens: int | None) -> Table:
    """A fresh prompt of each length once, then again each time other prompts have filled the device's pool."""
    pool = pool_tokens or bench.server.pool_tokens
    if pool is None:
        return {"skipped": "the server does not say how many tokens its device's pool holds; give --pool-tokens"}
    rows: list[dict[str, Any]] = []
    for length in lengths:
        if reason := bench.too_long(length + 1):
            rows.append({"len": length, "skipped": reason})
            continue
        bench.announce(f"host restore of {length} tokens")
        rows.append({"len": length, **_restore(bench, length, repeats, pool)})
        if rows[0]["cached_tokens"] == [0]:
            return {"skipped": "nothing of a prompt was left after others had filled the pool: there is no host tier"}
    return {"repeats": repeats, "pool_tokens": pool, "rows": rows}


def _restore(bench: Bench, length: int, repeats: int, pool: int) -> dict[str, Any]:
    each = min(_FLUSH_LENGTH, (bench.server.max_model_len or _FLUSH_LENGTH + 1) - 1)
    others = -(-int(pool * _FLUSH_MARGIN) // each)
    prompt = bench.fresh(length)
    records = bench.run(Series([prompt])).records
    for _ in range(repeats):
        flush = [bench.fresh(each) for _ in range(others)]
        records.append(bench.run(Series([*flush, prompt])).records[-1])
    return _again(records, "restore_ms")


def _again(records: Sequence[Record], name: str) -> dict[str, Any]:
    """The first record is of the fresh prompt, the others of its repetitions."""
    again = records[1:]
    return {
        "cold_ms": _rounded(ttft(records[0])),
        name: percentiles([t for r in again if (t := ttft(r)) is not None]),
        "each_ms": [_rounded(ttft(r)) for r in again],
        "cached_tokens": sorted({r.cached_tokens for r in again if r.cached_tokens is not None}),
        "failed": sum(r.failure is not None for r in records),
        "failures": dict(Counter(r.failure for r in records if r.failure)),
        "messages": {r.failure: r.message for r in records if r.failure},
    }


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)


def _start_once(arguments: list[str], first: bytes) -> dict[str, float]:
    with OwnServer(arguments) as server:
        ready = server.wait_ready()
        return {"ready_s": round(ready, 4), "first_token_s": round(first_token(server.url, first) - server.started, 4)}


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
