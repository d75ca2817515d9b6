"""What a user waits for and pays for before the first token: seconds to ready, seconds to the first text, memory.

    python -m bench.startup [--model DIR] [--rounds 5] [--json bench/results/FILE.json]

Each round starts `oi-run --http` afresh, with its artifact compiled before and its files in the page cache.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.environment import describe

_POLL_SECONDS = 0.005
_PROMPT = "def fibonacci(n):\n"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    while True:
        if server.poll() is not None:
            raise SystemExit(f"oi-run ended with code {server.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(_POLL_SECONDS)


def first_text(port: int) -> float:
    """Seconds from the request to the first streamed text."""
    body = {"prompt": _PROMPT, "max_tokens": 32, "stream": True, "temperature": 0}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    while True:
        line = response.readline()
        if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["text"]:
            seconds = time.perf_counter() - start
            response.read()
            return seconds


def memory(server: subprocess.Popen[bytes]) -> dict[str, float]:
    """MB over the process tree: resident (shared pages counted in each), and proportional."""
    root = psutil.Process(server.pid)
    infos = [process.memory_full_info() for process in (root, *root.children(recursive=True))]
    return {
        "rss_mb": sum(i.rss for i in infos) / 1e6,
        "pss_mb": sum(i.pss for i in infos) / 1e6,
        "processes": len(infos),
    }


def measure(command: list[str]) -> dict[str, float]:
    port = free_port()
    start = time.perf_counter()
    server = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_ready(port, server)
        ready = time.perf_counter() - start
        idle = memory(server)
        ttft = first_text(port)
        return {
            "ready_s": ready,
            "first_text_s": ttft,
            "idle_rss_mb": idle["rss_mb"],
            "idle_pss_mb": idle["pss_mb"],
            "after_rss_mb": memory(server)["rss_mb"],
        }
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="checkpoint to serve (default: the bundled one)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()

    oi_run = shutil.which("oi-run", path=str(Path(sys.executable).parent)) or "oi-run"
    command = [oi_run, "--http", *(["--model", args.model] if args.model else [])]
    measure(command)  # compiles a missing artifact, and fills the page cache
    rounds = [measure(command) for _ in range(args.rounds)]
    medians = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    table = Table(title=f"{' '.join(command[1:])}, median of {args.rounds}")
    for key in medians:
        table.add_column(key, justify="right")
    table.add_row(*(f"{v:.3f}" if key.endswith("_s") else f"{v:.0f}" for key, v in medians.items()))
    Console().print(table)
    if args.json:
        result: dict[str, Any] = {
            "what": "process start to /health 200, from there to the first streamed text, memory of the process tree",
            "command": " ".join(["python -m bench.startup", *sys.argv[1:]]),
            **describe(),
            "median": medians,
            "rounds": rounds,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
