"""Run oi, Hugging Face and llama.cpp on one checkpoint in turns, so that the machine's noise falls on all alike.

python -m bench.make_checkpoint 0.6B /tmp/qwen3-0.6b
python -m bench.cpu_peers /tmp/qwen3-0.6b [--llama-python PYTHON] [--json bench/results/FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.cpu_peers.worker import ENGINES
from bench.environment import describe


class Peer:
    """A worker process and what it measured."""

    def __init__(self, name: str, folder: Path, threads: int, python: str) -> None:
        self.name = name
        self.prefill: list[float] = []
        self.decode: list[float] = []
        self.bandwidth: list[float] = []
        """GB/s that the machine read just before each decode; it changes by the minute on shared machines."""
        self._process = subprocess.Popen(
            [python, "-m", "bench.cpu_peers.worker", name, str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def order(self, what: str, tokens: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({what: tokens}) + "\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the worker ended with code {self._process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer


_ITEMSIZE = {"oi": (2, 4), "hf-f32": (4, 4), "hf-bf16": (2, 2), "llama.cpp": (2, 2)}
"""Bytes of a weight, and of a key or value in the cache."""


def step_bytes(folder: Path, engine: str, context: float) -> float:
    """What a decode step must read: every weight (a tied embedding whole, by lm_head), every key and value, once."""
    config = json.loads((folder / "config.json").read_text())
    weights = sum(f.stat().st_size for f in folder.glob("*.safetensors")) // 2  # the checkpoint is in bf16
    cached = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * context
    weight_size, cache_size = _ITEMSIZE[engine]
    return weights * weight_size + cached * cache_size


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cpu_peers", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a Hugging Face folder in bf16")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every engine (default 5)")
    parser.add_argument("--prefill", type=int, default=256, help="prompt tokens (default 256)")
    parser.add_argument("--decode", type=int, default=24, help="tokens to generate a turn (default 24)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--engines", default="oi,hf-f32,hf-bf16", help="comma-separated; llama.cpp is added with its flag"
    )
    parser.add_argument("--llama-python", help="a Python that has llama-cpp-python and gguf: measure llama.cpp too")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()

    os.environ["TVM_NUM_THREADS"] = str(args.threads)
    from bench.kernels.cpu.launch import read_bandwidth  # imports the compiler: not before the arguments are right

    names = args.engines.split(",") + (["llama.cpp"] if args.llama_python else [])
    assert set(names) <= set(ENGINES), f"engines are {', '.join(ENGINES)}"
    pythons = {name: args.llama_python if name == "llama.cpp" else sys.executable for name in names}
    peers = [Peer(name, args.checkpoint.resolve(), args.threads, pythons[name]) for name in names]
    for round_ in track(range(args.rounds + 1), "measuring", console=Console(stderr=True)):
        for peer in peers:
            prefill = peer.order("prefill", args.prefill)
            bandwidth = read_bandwidth() / 1e9
            decode = peer.order("decode", args.decode)
            if round_:  # the first warms up: pages of the checkpoint, allocators, thread pools
                peer.prefill.append(prefill)
                peer.bandwidth.append(bandwidth)
                peer.decode.append(decode)
    for peer in peers:
        peer.close()
    report(args, peers)


def figures(args: argparse.Namespace, peer: Peer) -> dict[str, Any]:
    """Medians over the rounds; `read_fraction` is the median of each round's own ratio."""
    size = step_bytes(args.checkpoint, peer.name, args.prefill + args.decode / 2)
    rates = [args.decode / seconds * size / 1e9 for seconds in peer.decode]
    return {
        "prefill_tok_s": args.prefill / statistics.median(peer.prefill),
        "decode_tok_s": args.decode / statistics.median(peer.decode),
        "step_bytes": size,
        "decode_gb_s": statistics.median(rates),
        "read_gb_s": statistics.median(peer.bandwidth),
        "read_fraction": statistics.median(r / b for r, b in zip(rates, peer.bandwidth, strict=True)),
        "prefill_seconds": peer.prefill,
        "decode_seconds": peer.decode,
        "read_gb_s_before": peer.bandwidth,
    }


def report(args: argparse.Namespace, peers: list[Peer]) -> None:
    rows = {peer.name: figures(args, peer) for peer in peers}
    table = Table(title=f"{args.checkpoint.name}, {args.threads} threads, {platform.machine()}")
    for column in ("engine", f"prefill {args.prefill} tok/s", "decode tok/s", "decode GB/s", "machine GB/s", "of that"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        cells = (row["prefill_tok_s"], row["decode_tok_s"], row["decode_gb_s"], row["read_gb_s"])
        table.add_row(name, *(f"{c:.1f}" for c in cells), f"{row['read_fraction']:.0%}")
    Console().print(table)
    if args.json:
        result = {
            "what": "end-to-end speed on the CPU, engines in turns in one run",
            "command": f"python -m bench.cpu_peers {args.checkpoint.name} --rounds {args.rounds}"
            + (" --llama-python PYTHON" if args.llama_python else ""),
            **describe(),
            "checkpoint": args.checkpoint.name,
            "threads": args.threads,
            "prefill_tokens": args.prefill,
            "decode_tokens": args.decode,
            "engines": rows,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
