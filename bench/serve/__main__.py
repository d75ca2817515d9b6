"""Measure a server: footprint, start, QPS sweep, closed loop, prefixes warm and restored from the host.

    python -m bench.serve [--model DIR] [--json bench/results/cpu/serve.json] [-- --max-num-seqs 64]
    python -m bench.serve http://127.0.0.1:8000 --model DIR

Without URL it starts `oi-run --http` itself, also to time its start and read its memory. With one, any
OpenAI-compatible server will do; what cannot be known of it is left out, with the reason.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.environment import command, describe
from bench.serve import memory, prompts, tables
from bench.serve.load import Clients
from bench.serve.options import parse
from bench.serve.server import OwnServer, pid_of, served
from bench.serve.show import Steps, show
from bench.serve.statistics import RULES
from bench.serve.worker import Target
from oi.runtime.checkpoint import resolve

_SETTLE_SECONDS = 1.0


def main() -> None:
    argv = sys.argv[1:]
    options = parse(argv)
    checkpoint = None if options.url and not options.model else resolve(options.model)
    as_ids = options.prompts == "ids" or (options.prompts is None and checkpoint is None)
    words = prompts.vocabulary(checkpoint, as_ids=as_ids)
    result: dict[str, Any] = {
        "what": RULES,
        "command": command(argv, "bench.serve"),
        "quick": options.quick,
        **describe(),
        **({"device": gpu} if (gpu := memory.gpu()) else {}),
        "checkpoint": checkpoint.name if checkpoint else None,
        "prompts": "token ids" if as_ids else "text",
    }
    with Steps(_steps(options)) as steps:
        result |= measure(options, checkpoint, words, steps)
    show(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(
    options: argparse.Namespace, checkpoint: Path | None, words: prompts.Vocabulary, steps: Steps
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    arguments = _arguments(options)
    if "start" in options.tables:
        result["start"] = _start(options, checkpoint, words, arguments, steps)
    with _server(options.url, arguments, steps) as (url, pid), Clients(options.clients, steps.requests) as clients:
        time.sleep(_SETTLE_SECONDS)
        idle = _held(pid)
        server = served(url)
        target = Target(url + "/v1/completions", server.model, words, options.timeout)
        bench = tables.Bench(target, server, clients, steps.announce)
        with memory.Sampler(pid) as sampler:
            load = _load_tables(options, bench)
        time.sleep(_SETTLE_SECONDS)
        result["footprint"] = _footprint(idle, _held(pid), sampler.peak, loaded=bool(load))
        return {"engine": server.engine, "model": server.model.rpartition("/")[2], **result, **load}


def _load_tables(options: argparse.Namespace, bench: tables.Bench) -> dict[str, tables.Table]:
    level = (options.seconds, options.input, options.output)
    makers: dict[str, tuple[str, Callable[[], tables.Table]]] = {
        "qps": ("qps_sweep", lambda: tables.qps_sweep(bench, options.qps, *level)),
        "closed": ("closed_loop", lambda: tables.closed_loop(bench, options.concurrency, *level)),
        "prefix": ("warm_prefix", lambda: tables.warm_prefix(bench, options.lengths, options.repeats)),
        "restore": (
            "host_restore",
            lambda: tables.host_restore(bench, options.lengths, options.restore_repeats, options.pool_tokens),
        ),
    }
    return {name: make() for table, (name, make) in makers.items() if table in options.tables}


def _start(
    options: argparse.Namespace, checkpoint: Path | None, words: prompts.Vocabulary, arguments: list[str], steps: Steps
) -> tables.Table:
    if options.url or checkpoint is None:
        return {"skipped": "the server was not started here"}
    first = prompts.body(None, words, 16, 1, random.SystemRandom())
    return tables.start(arguments, checkpoint, first, options.rounds, steps.announce)


@contextmanager
def _server(url: str | None, arguments: list[str], steps: Steps) -> Iterator[tuple[str, int | None]]:
    """Its address and process."""
    if url is not None:
        yield url, pid_of(url)
        return
    steps.announce("starting the server")
    with OwnServer(arguments) as server:
        server.wait_ready()
        yield server.url, server.pid
        server.check()  # a dead server's figures are none


def _held(pid: int | None) -> dict[str, Any] | None:
    return None if pid is None else {**memory.usage(pid), "device": memory.device(pid)}


def _footprint(
    idle: dict[str, Any] | None, after: dict[str, Any] | None, peak: dict[str, float], *, loaded: bool
) -> tables.Table:
    if idle is None:
        return {"skipped": "the server's process is not on this host, or is not ours to look at"}
    return {
        "what": "RSS and PSS over the process tree, 1 s after ready and 1 s after the load; peak: RSS each 50 ms, PSS "
        "each second",
        "idle": idle,
        "after_load": after if loaded else None,
        "peak_load": peak if loaded else None,
    }


def _arguments(options: argparse.Namespace) -> list[str]:
    named = {"--model": options.model, "--artifact": options.artifact}
    return [*(part for flag, value in named.items() if value for part in (flag, value)), *options.arguments]


def _steps(options: argparse.Namespace) -> int:
    counts = {
        "start": 0 if options.url else 1 + 2 * options.rounds,
        "qps": len(options.qps),
        "closed": len(options.concurrency),
        "prefix": len(options.lengths),
        "restore": len(options.lengths),
    }
    return (options.url is None) + sum(counts[table] for table in options.tables)


if __name__ == "__main__":
    main()
