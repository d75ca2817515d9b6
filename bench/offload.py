"""The host tier at work, without HTTP: what comes back, how fast, and what it costs those who decode meanwhile.

    python -m bench.offload CHECKPOINT --artifact DIR [--minutes 5] [--json bench/results/h100/offload.json]

    growth    steps while the tier's memory is being locked, beside steps after
    restore   first token of a prompt that is new, on the device, and on the host (others have flushed the device)
    copying   a decode step alone, and with copies of whole pages in flight all the time, each way and both
    beside    a decode's time a token alone, and beside a user whose prompts are all restored
    revisit   prompts of three times the device's pool, again at random: the answers are those of a hit on the device

In `beside` the other user's steps cost too (16 tokens of a prompt each): `hits` is that user with hits on the device.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.batches import Pages, Part, make_batch
from bench.ceilings import ceilings
from bench.environment import command, describe
from oi.runtime.artifact import open_artifact
from oi.runtime.copies import Copies, Copy
from oi.runtime.engine import Engine
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.messages import SamplingParams, StepDone, Submit, TokenIds
from oi.runtime.runner import Runner
from oi.runtime.step import open_runner

GREEDY = SamplingParams(temperature=0.0)
DECODE = ((8, 1024), (1, 1024))
STEPS = 300
IN_FLIGHT, PAGES_A_COPY, PAGES = 2, 512, 32
"""Of `copying`, each way: as many as a restore of 16 k tokens queues at once."""
REPEATS = 5
ANSWER = 16


@dataclass
class Asked:
    """A request that ran to its end alone."""

    tokens: list[int]
    cached: int
    first: float
    """Seconds from its submission to its first token."""


class User:
    """Sends one engine requests of random tokens."""

    def __init__(self, runner: Runner) -> None:
        self.engine = Engine(runner)
        self.limits = runner.geometry
        self._rng = random.Random()
        self._next = 0

    def prompt(self, tokens: int) -> TokenIds:
        return array("i", self._rng.choices(range(self.limits.vocab_size), k=tokens))

    def submit(self, prompt: TokenIds, answer: int) -> int:
        self._next += 1
        self.engine.submit(Submit(self._next, prompt, GREEDY, answer))
        return self._next

    def ask(self, prompt: TokenIds, answer: int = 1) -> Asked:
        began, first, tokens, cached = time.perf_counter(), 0.0, [], 0
        self.submit(prompt, answer)
        while self.engine.has_work:
            for token in self.engine.step().tokens:
                first = first or time.perf_counter() - began
                tokens.append(token.token)
                cached += token.cached or 0
        return Asked(tokens, cached, first)

    def flush(self) -> None:
        """Fill the device with others' prompts."""
        left = int(self.limits.pages * self.limits.page_size * 1.1)
        while left > 0:
            size = min(4096, self.limits.max_model_len - 1)
            self.ask(self.prompt(size))
            left -= size
        self.settle()

    def settle(self) -> None:
        """All that is in flight lands."""
        exchange = self.engine.exchange
        assert exchange is not None
        while exchange.tier.waits:
            exchange.copies.wait()
            exchange.take(self.engine.scheduler)

    def findable(self, prompt: TokenIds) -> int:
        return (len(prompt) - 1) // self.limits.page_size * self.limits.page_size


def growth(runner: Runner) -> dict[str, Any]:
    """Decode steps from the runner's opening on, until nothing grows any more, and as many after."""
    copies, began = _copies(runner), time.perf_counter()
    sizes = [copies.num_slots]
    while_growing: list[float] = []
    steps = _decode_steps(runner, min(8, _roomy(runner) // 512), 256)
    quiet = time.perf_counter()
    while time.perf_counter() - quiet < 1.0:
        while_growing.append(next(steps))
        if copies.num_slots != sizes[-1]:
            sizes.append(copies.num_slots)
            quiet = time.perf_counter()
    after = [next(steps) for _ in range(max(len(while_growing), 500))]
    return {
        "slots": sizes[-1],
        "gib": sizes[-1] * copies.page_bytes / 2**30,
        "seconds": quiet - began,
        "growing": _spread(while_growing),
        "grown": _spread(after),
    }


def restore(user: User, lengths: list[int]) -> list[dict[str, Any]]:
    rows = []
    for length in [n for n in lengths if n < user.limits.max_model_len]:
        cold = [user.ask(user.prompt(length)).first for _ in range(REPEATS)]
        prompt = user.prompt(length)
        user.ask(prompt)
        on_device = [user.ask(prompt) for _ in range(REPEATS)]
        on_host, moved, seconds = [], 0, 0.0
        for _ in range(REPEATS):
            user.flush()
            before = user.engine.stats()
            on_host.append(user.ask(prompt))
            after = user.engine.stats()
            moved += after.restored_bytes - before.restored_bytes
            seconds += after.restore_seconds - before.restore_seconds
        rows.append(
            {
                "length": length,
                "cold_ms": _median_ms(cold),
                "device_ms": _median_ms([a.first for a in on_device]),
                "host_ms": _median_ms([a.first for a in on_host]),
                "host_each_ms": [round(1e3 * a.first, 3) for a in on_host],
                "found": sorted({a.cached for a in on_host}),
                "findable": user.findable(prompt),
                "restored_bytes": moved,
                "bus_gb_s": moved / seconds / 1e9 if seconds else None,
            }
        )
    return rows


def copying(runner: Runner) -> list[dict[str, Any]]:
    """Medians of decode steps in the same run, alone and with the bus busy."""
    rows = []
    for batch, context in DECODE:
        if batch > runner.geometry.max_num_seqs or batch * context > _roomy(runner):
            continue
        row: dict[str, Any] = {"batch": batch, "context": context}
        for name, ways in (("alone", ()), ("save", (True,)), ("restore", (False,)), ("both", (True, False))):
            bus = _Bus(runner, ways)
            steps = _decode_steps(runner, batch, context)
            seconds = []
            for _ in range(STEPS):
                bus.keep_busy()
                seconds.append(next(steps))
            steps.close()
            row[name] = {**_spread(seconds), "gb_s": bus.drain()}
        rows.append(row)
    return rows


class _Bus:
    """Copies of a few pages that nobody uses, the last of the device's, again and again."""

    def __init__(self, runner: Runner, ways: tuple[bool, ...]) -> None:
        self._copies, self._ways = _copies(runner), ways
        self._last = runner.geometry.pages
        self._count = dict.fromkeys(ways, 0)
        self._bytes, self._began = 0, time.perf_counter()

    def keep_busy(self) -> None:
        self._take()
        for to_host in self._ways:
            while self._count[to_host] < IN_FLIGHT:
                self._count[to_host] += 1
                half = PAGES * to_host
                moves = [(self._last - 1 - half - i % PAGES, half + i % PAGES) for i in range(PAGES_A_COPY)]
                self._copies.start(Copy(to_host, moves, beside=1 << 20), ())

    def drain(self) -> float:
        """Gigabytes a second, both ways together."""
        while any(self._count.values()):
            self._copies.wait()
            self._take()
        return self._bytes / (time.perf_counter() - self._began) / 1e9

    def _take(self) -> None:
        for copy, ok, _ in self._copies.landed():
            assert ok
            self._count[copy.to_host] -= 1
            self._bytes += len(copy.moves) * self._copies.page_bytes


def beside(user: User) -> dict[str, Any]:
    """Decoding sequences, and a second user: none, one whose prompts are on the device, one whose are on the host."""
    length = min(4096, user.limits.max_model_len // 2)
    decoders, context = 4, min(512, user.limits.max_model_len // 4)
    steps = min(STEPS, context)
    prompts = [user.prompt(length) for _ in range(3 * user.limits.pages * user.limits.page_size // length)]
    row: dict[str, Any] = {"decoders": decoders, "context": context, "prompt": length}
    for name, others in (("alone", []), ("hits", prompts[-1:]), ("restored", prompts)):
        for prompt in prompts:  # of which the last stays on the device, and the one asked next has left it longest ago
            user.ask(prompt)
        user.settle()
        before = user.engine.stats()
        seconds, asked = _decode_beside(user, decoders, context, steps, others)
        after = user.engine.stats()
        row[name] = {
            **_spread(seconds),
            "requests": asked,
            "restored_bytes": after.restored_bytes - before.restored_bytes,
            "saved_bytes": after.saved_bytes - before.saved_bytes,
            "seconds": sum(seconds),
        }
    return row


def _decode_beside(
    user: User, decoders: int, context: int, steps: int, others: list[list[int]]
) -> tuple[list[float], int]:
    """Seconds from token to token of the decoding sequences; requests that the other user got answered."""
    engine = user.engine
    ids = {user.submit(user.prompt(context), steps + 1) for _ in range(decoders)}
    other, asked, turn = 0, 0, iter(())  # type: ignore[var-annotated]
    last: dict[int, float] = {}
    seconds: list[float] = []
    while engine.has_work:
        done: StepDone = engine.step()
        now = time.perf_counter()
        for token in done.tokens:
            if token.id in ids:
                if token.id in last:
                    seconds.append(now - last[token.id])
                last[token.id] = now
            elif token.finish:
                asked, other = asked + 1, 0
        if others and not other and len(last) == len(ids) and not any(t.finish for t in done.tokens if t.id in ids):
            with suppress(StopIteration):
                other = user.submit(next(turn), 1)
                continue
            turn = iter(others)
    return seconds, asked


def revisit(user: User, minutes: float, host_tokens: int) -> dict[str, Any]:
    """One request at a time, so that a prompt's answer depends on nothing but what was found of it."""
    pool = user.limits.pages * user.limits.page_size
    longest = min(4096, user.limits.max_model_len // 4)
    prompts, left = [], 3 * pool
    while left > 0:
        prompts.append(user.prompt(random.randint(longest // 4, longest)))
        left -= len(prompts[-1])
    answers = []
    for prompt in prompts:
        user.ask(prompt, ANSWER)
        answers.append(user.ask(prompt, ANSWER).tokens)  # all but the last page on the device
    counts = {"requests": 0, "different": 0, "found": 0, "findable": 0}
    start, resident, end = user.engine.stats(), _resident(), time.monotonic() + 60 * minutes
    peak = resident
    while time.monotonic() < end:
        which = random.randrange(len(prompts))
        asked = user.ask(prompts[which], ANSWER)
        counts["requests"] += 1
        counts["different"] += asked.tokens != answers[which]
        counts["found"] += asked.cached
        counts["findable"] += user.findable(prompts[which])
        if not counts["requests"] % 50:
            user.engine.scheduler.check()
            peak = max(peak, _resident())
    user.settle()
    user.engine.scheduler.check()
    stats = user.engine.stats()
    return {
        "minutes": minutes,
        "prompts": len(prompts),
        "tokens": sum(map(len, prompts)),
        "device_tokens": pool,
        "host_tokens": host_tokens,
        **counts,
        "from_host": stats.host_hits - start.host_hits,
        "restored_bytes": stats.restored_bytes - start.restored_bytes,
        "saved_bytes": stats.saved_bytes - start.saved_bytes,
        "pages_held": stats.pages_used,
        "resident_growth_mb": (peak - resident) / 1e6,
    }


def _decode_steps(runner: Runner, batch: int, context: int) -> Iterator[float]:
    """Seconds of each step at about `context`, overlapped as the engine does, in the first of the pages."""
    size = runner.geometry.page_size
    pages = Pages(batch * -(-(context + 8) // size), size)
    rng = np.random.default_rng()
    sequences = [
        pages.sequence(rng.integers(runner.geometry.vocab_size, size=context + 8, dtype=np.int32)) for _ in range(batch)
    ]
    for sequence in sequences:
        while sequence.computed < context:
            count = min(runner.geometry.max_step_tokens, context - sequence.computed)
            runner.finish(runner.start(make_batch([Part(sequence, count, frozenset())], size)[0]))

    def start(fed: bool) -> Any:
        for sequence in sequences:
            sequence.computed = context  # the same position again and again
        return runner.start(make_batch([Part(s, 1) for s in sequences], size, fed=fed and runner.overlaps)[0])

    handle, last = start(False), time.perf_counter()
    try:
        while True:
            following = start(True)
            runner.finish(handle)
            handle, now = following, time.perf_counter()
            yield now - last
            last = now
    finally:
        runner.finish(handle)


def _roomy(runner: Runner) -> int:
    """Tokens of pages that `_Bus` leaves alone."""
    return (runner.geometry.pages - 2 * PAGES) * runner.geometry.page_size


def _copies(runner: Runner) -> Copies:
    assert runner.copies is not None
    return runner.copies


def _spread(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(seconds, (0.5, 0.99)).tolist()
    return {"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "max_ms": 1e3 * max(seconds), "mean_ms": 1e3 * np.mean(seconds)}


def _median_ms(seconds: list[float]) -> float:
    return 1e3 * statistics.median(seconds)


def _resident() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.offload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--pool-tokens", type=int, default=22400, help="of the device (default 22400)")
    parser.add_argument("--host-gib", type=float, default=16.0, help="of the host tier (default 16)")
    parser.add_argument("--lengths", default="1024,4096,16384", help="of prompts restored (default 1024,4096,16384)")
    parser.add_argument("--minutes", type=float, default=0.0, help="of random revisits (default 0: none)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    kv = open_artifact(args.artifact).manifest.kv
    host = int(args.host_gib * 2**30)
    device = args.pool_tokens // kv.page_size * kv.page_bytes
    found: dict[str, Any] = {}
    with suppress(RuntimeError):  # no GPU, or no PyTorch: no ceiling
        found = ceilings()
    before = time.perf_counter()
    runner = open_runner(EngineSettings(str(args.artifact), str(args.checkpoint), kv_bytes=device, host_kv_bytes=host))
    opened = time.perf_counter() - before
    result: dict[str, Any] = {
        "command": command(sys.argv[1:], "bench.offload"),
        **describe(),
        "ceilings": found,
        "open_seconds": opened,
        "growth": growth(runner),
        "resident_beside_pool_mb": (_resident() - _copies(runner).num_slots * kv.page_bytes) / 1e6,
        "copying": copying(runner),
    }
    user = User(runner)
    result["restore"] = restore(user, [int(n) for n in args.lengths.split(",")])
    result["beside"] = beside(user)
    _show(result)
    _write(args.json, result)
    if args.minutes:
        result["revisit"] = revisit(user, args.minutes, host // kv.page_bytes * kv.page_size)
        Console(width=120).print(result["revisit"])
        _write(args.json, result)


def _write(file: Path | None, result: dict[str, Any]) -> None:
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n")


def _show(result: dict[str, Any]) -> None:
    console, pinned = Console(width=120), result["ceilings"].get("pinned_gb_s")
    grown = result["growth"]
    console.print(
        f"{grown['gib']:.1f} GiB locked in {grown['seconds']:.1f} s after opening ({result['open_seconds']:.2f} s); "
        f"steps meanwhile p50 {grown['growing']['p50_ms']:.3f}, max {grown['growing']['max_ms']:.1f} ms; after "
        f"{grown['grown']['p50_ms']:.3f}, {grown['grown']['max_ms']:.1f} ms"
    )
    console.print(
        f"resident beside the pool: {result['resident_beside_pool_mb']:.0f} MB (CPU: slots not written yet count)"
    )
    table = Table("decode step, p50 ms", "alone", "saving", "restoring", "both", "worst", "GB/s, both")
    for row in result["copying"]:
        alone = row["alone"]["p50_ms"]
        times = [row[name]["p50_ms"] for name in ("alone", "save", "restore", "both")]
        name = f"{row['batch']} × {row['context']}"
        table.add_row(name, *(f"{t:.3f}" for t in times), f"{max(times) / alone:.3f}×", f"{row['both']['gb_s']:.1f}")
    console.print(table)
    table = Table("tokens", "new, ms", "on the device", "on the host", "of new", "found", "GB/s", "of pinned")
    for row in result["restore"]:
        speed = row["bus_gb_s"]
        table.add_row(
            str(row["length"]),
            *(f"{row[name]:.2f}" for name in ("cold_ms", "device_ms", "host_ms")),
            f"{row['cold_ms'] / row['host_ms']:.1f}×",
            f"{row['found']} of {row['findable']}",
            "-" if speed is None else f"{speed:.1f}",
            "-" if speed is None or pinned is None else f"{speed / pinned:.0%}",
        )
    console.print(table)
    table = Table(
        "decode beside", "p50 ms", "mean", "p99", "of alone (p50, mean)", "requests", "restored GB", "saved GB"
    )
    alone = result["beside"]["alone"]
    for name in ("alone", "hits", "restored"):
        row = result["beside"][name]
        table.add_row(
            name,
            *(f"{row[key]:.3f}" for key in ("p50_ms", "mean_ms", "p99_ms")),
            f"{row['p50_ms'] / alone['p50_ms']:.2f}×, {row['mean_ms'] / alone['mean_ms']:.2f}×",
            str(row["requests"]),
            *(f"{row[key] / 1e9:.2f}" for key in ("restored_bytes", "saved_bytes")),
        )
    console.print(table)


if __name__ == "__main__":
    main()
