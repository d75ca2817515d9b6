"""Does a server stand minutes of mixed load: nothing fails, nothing grows, nothing slows, nothing is left behind?

    python -m bench.soak [--minutes 8] [--users 32] [--model DIR] [--json FILE] [-- --kv-cache-mib 512]
    python -m bench.soak http://127.0.0.1:8000 --model DIR

Users send prompts of 1 to 16 k tokens, as long as others as short, half streamed, half sampled, one of twenty left by
its user; some are greedy and were asked alone before. Ends with 1 and names the faults if there are any: a request
failed, resident memory grew by more than 2% from the first minute to the last, pages or requests were left behind.

What has a bound must be full before the first minute, or its filling is taken for growth: the server remembers texts
it has tokenized and prompts it has hashed, 8 MiB of each, which takes a million prompt tokens (on a GPU --warm-up 45,
on a CPU --warm-up 600), and on a CPU its pages become resident as they are first written (--kv-cache-mib 64).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.environment import command, describe
from bench.serve import memory, prompts
from bench.serve.client import open_session
from bench.serve.server import OwnServer, get, pid_of, served
from bench.serve.show import Steps
from bench.soak import report
from bench.soak.mix import Mix, probes
from bench.soak.users import Answer, Plan, send, send_all
from oi.runtime.checkpoint import resolve

_START_SECONDS = 3.0
"""For client processes to be there."""
_EMPTY_SECONDS = 30.0
_TAIL_SECONDS = 5.0
_GAUGES = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting",
    "of the pages held": "kv_cache_usage_perc",
}
_ANY_LENGTH = 4096
"""Taken for what a server admits that does not say it."""


def main() -> None:
    argv = sys.argv[1:]
    options = _parse(argv)
    checkpoint = resolve(options.model)
    words = [str(word) for word in prompts.vocabulary(checkpoint, as_ids=False)]
    seed = random.SystemRandom().getrandbits(48)
    with Steps(4 + len(report.spans(0, options.minutes))) as steps, _server(options, steps) as (url, pid, check):
        figures = _soak(options, words, seed, steps, url, pid, check)
    result: dict[str, Any] = {
        "what": report.RULES,
        "command": command(argv, "bench.soak"),
        **describe(),
        "checkpoint": checkpoint.name,
        "users": options.users,
        "seconds": {"minutes": options.minutes * 60, "before": options.warm_up, "after": _tail(options)},
        "seed": seed,
        **figures,
    }
    result["faults"] = report.faults(result, exact=options.exact)
    report.show(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result["faults"]))


def _soak(
    options: argparse.Namespace,
    words: list[str],
    seed: int,
    steps: Steps,
    url: str,
    pid: int | None,
    check: Callable[[], None],
) -> dict[str, Any]:
    server = served(url)
    mix = _mix(server.model, words, server.max_model_len or _ANY_LENGTH, seed)
    steps.announce("greedy answers alone")
    alone = [_alone(mix, url, number, options.timeout) for number in range(mix.probes)]
    begin = time.perf_counter() + _START_SECONDS
    minutes = report.spans(begin + options.warm_up, options.minutes)
    plan = Plan(url, mix, options.users, seed, begin, minutes[-1].end + _tail(options), options.timeout)
    with _resident(pid) as rss:
        answers, cpu = send_all(plan, options.clients, _watch(steps, minutes, check))
    steps.announce("until nothing runs")
    after = _left_behind(url)
    check()
    load = {"longest_prompt": mix.longest_prompt, "longest_answer": mix.longest_answer}
    return {
        "engine": server.engine,
        "model": server.model.rpartition("/")[2],
        **load,
        "client_cpu": round(cpu / (plan.end - plan.begin), 3),
        **report.figures(answers, alone, rss, minutes),
        "after": after,
    }


def _mix(model: str, words: list[str], max_model_len: int, seed: int) -> Mix:
    try:
        return Mix(model, words, max_model_len, seed, probes(words, max_model_len, random.Random(f"{seed} probes")))
    except ValueError as e:
        raise SystemExit(str(e)) from e


def _alone(mix: Mix, url: str, number: int, timeout: float) -> list[int]:
    async def once() -> Answer:
        async with open_session() as session:
            return await send(session, url, mix.ask(number, streamed=True), timeout)

    record = asyncio.run(once()).record
    if record.failure is not None:
        raise SystemExit(f"a request alone failed, {record.failure}: {record.message}")
    return record.token_ids


def _watch(steps: Steps, minutes: list[report.Span], check: Callable[[], None]) -> Callable[[int, int, int], None]:
    """Says which minute it is, and what was sent; raises SystemExit where the server has ended."""
    names = [(0.0, "before the first minute")]
    names += [(span.begin, f"minute {i + 1} of {len(minutes)}") for i, span in enumerate(minutes)]
    names += [(minutes[-1].end, "after the last minute")]

    def watch(sent: int, ended: int, failed: int) -> None:
        if names and names[0][0] <= time.perf_counter():
            steps.announce(names.pop(0)[1])
        steps.requests(sent, ended, failed)
        check()

    return watch


@contextmanager
def _server(options: argparse.Namespace, steps: Steps) -> Iterator[tuple[str, int | None, Callable[[], None]]]:
    """Its address, its process, and what raises SystemExit where it has ended."""
    if options.url is not None:
        yield options.url, pid_of(options.url), lambda: None
        return
    steps.announce("starting the server")
    with OwnServer([*(["--model", options.model] if options.model else []), *options.arguments]) as server:
        server.wait_ready()
        yield server.url, server.pid, server.check


@contextmanager
def _resident(pid: int | None) -> Iterator[list[report.Sample]]:
    """Samples, each second while it is open; none where there is no process to look at."""
    samples: list[report.Sample] = []
    stop = threading.Event()

    def watch(pid: int) -> None:
        while not stop.wait(1.0):
            samples.append((time.perf_counter(), memory.resident(pid)))

    thread = threading.Thread(target=watch, args=(pid,), daemon=True)
    if pid is not None:
        thread.start()
    try:
        yield samples
    finally:
        stop.set()
        if pid is not None:
            thread.join()


def _left_behind(url: str) -> dict[str, Any]:
    """What runs, waits and is held when nothing does any more, or after so many seconds."""
    begun = time.perf_counter()
    while any((left := _gauges(url)).values()) and time.perf_counter() - begun < _EMPTY_SECONDS:
        time.sleep(0.1)
    return {"left_behind": left, "waited_s": round(time.perf_counter() - begun, 1)}


def _gauges(url: str) -> dict[str, float]:
    """Those of `/metrics` that must be 0 in the end, by vLLM's names; none where there are none."""
    status, text = get(url, "/metrics")
    if status != 200:
        return {}
    lines = text.decode(errors="replace")
    found = {
        what: re.search(rf"^\w+:{name}(?:\{{.*\}})? (\S+)$", lines, re.MULTILINE) for what, name in _GAUGES.items()
    }
    return {what: float(value[1]) for what, value in found.items() if value is not None}


def _tail(options: argparse.Namespace) -> float:
    """Seconds for which the load goes on after the last minute, which would else have its drain in it."""
    return min(_TAIL_SECONDS, float(options.warm_up))


def _parse(argv: list[str]) -> argparse.Namespace:
    """What follows `--` is left in `arguments`, for oi-run."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        usage="%(prog)s [options] [URL] [-- options of oi-run]",
        description="Minutes of mixed load: nothing may fail, grow or be left behind.",
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="of a running server, such as http://127.0.0.1:8000")
    parser.add_argument("--model", metavar="DIR", help="checkpoint (default: the bundled one; with URL: its tokenizer)")
    parser.add_argument("--minutes", type=float, default=8.0, help="that are compared (default 8)")
    parser.add_argument("--warm-up", type=float, default=15.0, metavar="SECONDS", help="load before them (default 15)")
    parser.add_argument("--users", type=int, default=32, help="requests at once (default 32)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one request (default 300)")
    parser.add_argument("--clients", type=int, default=2, help="client processes (default 2)")
    parser.add_argument("--exact", action="store_true", help="greedy answers that differ from those alone are faults")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args(argv[:cut])
    options.arguments = argv[cut + 1 :]
    if options.url:
        options.url = options.url.rstrip("/").removesuffix("/v1")
        if options.arguments or not options.url.startswith("http://"):
            parser.error("URL is http://… of a server that runs; what follows `--` is for one that is started")
        if not options.model:
            parser.error("prompts of known lengths need the server's tokenizer; give --model DIR")
    if min(options.minutes, options.users, options.clients) <= 0 or options.users < options.clients:
        parser.error("--minutes and --clients must be positive, and --users as many as --clients at least")
    return options


if __name__ == "__main__":
    main()
