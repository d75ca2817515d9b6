"""How much sooner a prompt is answered that was seen before: TTFT cold and warm, over HTTP.

    python -m bench.prefix URL [--tokens 2000] [--repeats 5] [--json bench/results/FILE.json]

Each repeat sends a fresh random prompt twice; the second must be served from the prefix cache.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from bench.environment import describe


def ask(address: str, prompt: list[int]) -> tuple[float, int]:
    """Send a prompt for one token; returns (seconds to the first choice, cached tokens as the server counts them)."""
    body = {
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection(address, timeout=600)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    first = 0.0
    cached = 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if chunk.get("choices") and not first:
            first = time.perf_counter() - start
        if usage := chunk.get("usage"):
            cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert response.status == 200, response.status
    assert first, "the stream ended without a choice"
    return first, cached


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.prefix", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="of a running server, e.g. http://127.0.0.1:8000")
    parser.add_argument("--tokens", type=int, default=2000, help="prompt length (default 2000)")
    parser.add_argument(
        "--vocabulary", type=int, default=4000, help="prompt tokens are drawn below this (default 4000)"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()

    address = urlsplit(args.url).netloc
    rows = []
    for _ in range(args.repeats):
        prompt = random.SystemRandom().choices(range(args.vocabulary), k=args.tokens)
        (cold, found_cold), (warm, found_warm) = ask(address, prompt), ask(address, prompt)
        assert found_cold < found_warm, f"cached tokens: first {found_cold}, then {found_warm}"
        rows.append({"cold_s": cold, "warm_s": warm, "cached_tokens": found_warm})
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    table = Table("prompt tokens", "cold TTFT ms", "warm TTFT ms", "times sooner", "cached tokens")
    cold, warm = medians["cold_s"], medians["warm_s"]
    cells = (f"{args.tokens}", f"{cold * 1e3:.1f}", f"{warm * 1e3:.1f}", f"{cold / warm:.1f}")
    table.add_row(*cells, f"{medians['cached_tokens']:.0f}")
    Console().print(table)
    if args.json:
        result = {
            "what": "TTFT of a fresh random prompt, and of the same prompt again",
            "command": " ".join(["python -m bench.prefix", *sys.argv[1:]]),
            **describe(),
            "median": medians,
            "rows": rows,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
