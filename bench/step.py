"""How long the engine's steps take on a GPU, without HTTP, beside their floors: decode, prefill, prefix hit, start-up.

    python -m bench.step CHECKPOINT --artifact DIR [--json bench/results/h100/step.json]

A decode step is timed as the engine runs it: step N + 1 is started, fed with N's tokens on the device, before N is
finished. Floors: bytes over the read bandwidth, operations over the bf16 rate, both measured in the same minutes.

    decode    weights once + 2·L·K·D·2 bytes a token of context; a step must read them
    prefill   2 operations a weight (lm_head: the last token's) and token, 4·L·Q·D a pair of query and earlier key
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.batches import Pages, Part, Tokens, make_batch
from bench.ceilings import ceilings
from bench.environment import command, describe, resident_bytes
from oi.runtime.artifact import open_artifact
from oi.runtime.checkpoint import read_config
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.manifest import Manifest
from oi.runtime.runner import Runner
from oi.runtime.step import open_runner

DECODE = (
    (1, 128),
    (1, 1024),
    (8, 400),
    (16, 400),
    (32, 400),
    (64, 400),
    (64, 1100),
    (128, 400),
    (128, 1100),
    (256, 400),
    (256, 1100),
    (1, 16384),
)
PREFILL = (64, 256, 1024, 2048, 4096, 16384)
STEPS = 40


@dataclass(frozen=True)
class Costs:
    """Of a model: what its steps must read and compute."""

    weight_bytes: int
    """Read by a decode step: all but the embedding's other rows."""
    kv_bytes_per_token: int
    operations_per_token: int
    """Of the layers' products."""
    head_operations: int
    """Of one sampled row."""
    attention_operations: int
    """Of one pair of a query and a key, over all layers."""

    @classmethod
    def of(cls, manifest: Manifest, config: dict[str, Any]) -> Costs:
        model, kv = manifest.model, manifest.kv
        head = model.vocab_size * model.hidden_size
        tied = config["tie_word_embeddings"]
        read = model.parameters - (0 if tied else head)
        return cls(
            weight_bytes=2 * read,
            kv_bytes_per_token=kv.page_bytes // kv.page_size,
            operations_per_token=2 * (read - head),
            head_operations=2 * head,
            attention_operations=4 * kv.layers * config["num_attention_heads"] * kv.head_dim,
        )

    def decode_floor(self, batch: int, context: int, read_bytes_s: float) -> float:
        return (self.weight_bytes + batch * context * self.kv_bytes_per_token) / read_bytes_s

    def prefill_floor(self, tokens: int, flop_s: float) -> float:
        pairs = tokens * (tokens + 1) // 2
        operations = tokens * self.operations_per_token + self.head_operations + pairs * self.attention_operations
        return operations / flop_s


class Bench:
    """Times steps of one runner."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.geometry = runner.geometry
        self.rng = np.random.default_rng()

    def random_tokens(self, count: int) -> Any:
        return self.rng.integers(self.geometry.vocab_size, size=count, dtype=np.int32)

    def fill(self, sequences: list[Tokens], upto: int) -> None:
        """Compute the first `upto` tokens of each, in steps as large as they may be."""
        budget = self.geometry.max_step_tokens
        for sequence in sequences:
            while sequence.computed < upto:
                count = min(budget, upto - sequence.computed)
                self.finish(self.runner.start(make_batch([Part(sequence, count, frozenset())], self.page_size)[0]))

    @property
    def page_size(self) -> int:
        return self.geometry.page_size

    def finish(self, handle: Any) -> None:
        self.runner.finish(handle)

    def decode(self, batch: int, context: int) -> dict[str, Any]:
        """Median seconds of a step at about `context` tokens, steps overlapped as the engine does."""
        pages = Pages(self.geometry.pages, self.page_size)
        longest = context + STEPS // 2 + 8
        sequences = [pages.sequence(self.random_tokens(longest)) for _ in range(batch)]
        start = context - STEPS // 2
        self.fill(sequences, start)
        handle = self.runner.start(make_batch([Part(s, 1) for s in sequences], self.page_size)[0])
        marks = []
        for _ in range(STEPS):
            following = self.runner.start(make_batch([Part(s, 1) for s in sequences], self.page_size, fed=True)[0])
            self.runner.finish(handle)
            marks.append(time.perf_counter())
            handle = following
        self.runner.finish(handle)
        times = np.diff(marks)[4:]
        return {
            "batch": batch,
            "context": context,
            "seconds": float(np.median(times)),
            "p90": float(np.quantile(times, 0.9)),
        }

    def prefill(self, tokens: int, repeats: int = 5) -> dict[str, Any]:
        """Median seconds from the first step's start to the first token, of a fresh prompt."""
        times = []
        for _ in range(repeats):
            sequence = Pages(self.geometry.pages, self.page_size).sequence(self.random_tokens(tokens))
            begin = time.perf_counter()
            self.chunks(sequence)
            times.append(time.perf_counter() - begin)
        return {"tokens": tokens, "seconds": statistics.median(times[1:])}

    def chunks(self, sequence: Tokens) -> None:
        """All that is left of a sequence, one step ahead as the engine runs."""
        handle = None
        while sequence.computed < len(sequence):
            count = min(self.geometry.max_step_tokens, len(sequence) - sequence.computed)
            last = sequence.computed + count == len(sequence)
            part = Part(sequence, count, None if last else frozenset())
            following = self.runner.start(make_batch([part], self.page_size)[0])
            if handle is not None:
                self.runner.finish(handle)
            handle = following
        self.runner.finish(handle)

    def prefix_hit(self, context: int, repeats: int = 10) -> dict[str, Any]:
        """Median seconds of the step that computes the last page of a context whose rest is in the cache."""
        sequence = Pages(self.geometry.pages, self.page_size).sequence(self.random_tokens(context))
        self.fill([sequence], context - self.page_size)
        times = []
        for _ in range(repeats):
            sequence.computed = context - self.page_size
            begin = time.perf_counter()
            self.chunks(sequence)
            times.append(time.perf_counter() - begin)
        return {"context": context, "seconds": statistics.median(times[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a few points only")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    ceiling = ceilings()
    begin = time.perf_counter()
    runner = open_runner(EngineSettings(str(args.artifact), str(args.checkpoint)))
    opened = time.perf_counter() - begin
    costs = Costs.of(open_artifact(args.artifact).manifest, read_config(args.checkpoint))
    bench = Bench(runner)
    read, flops = ceiling["read_tb_s"] * 1e12, ceiling["bf16_tflop_s"] * 1e12
    longest = runner.geometry.max_model_len - STEPS
    decode = [(b, c) for b, c in DECODE if b <= runner.geometry.max_num_seqs and c <= longest]
    prefill = [n for n in PREFILL if n <= longest]
    if args.quick:
        decode, prefill = [p for p in decode if p in ((1, 1024), (64, 400), (256, 1100))], prefill[:3]
    result: dict[str, Any] = {
        "command": command(sys.argv[1:], "bench.step"),
        **describe(),
        "ceilings": ceiling,
        "costs": costs.__dict__,
        "open_seconds": opened,
        "startup_seconds": getattr(runner, "startup_seconds", None),
        "resident_mb": resident_bytes() / 1e6,
        "decode": [],
        "prefill": [],
    }
    for batch, context in decode:
        row = bench.decode(batch, context)
        result["decode"].append({**row, "floor": costs.decode_floor(batch, context, read)})
    for tokens in prefill:
        row = bench.prefill(tokens)
        result["prefill"].append({**row, "floor": max(costs.prefill_floor(tokens, flops), costs.weight_bytes / read)})
    hit = min(16384, longest)
    result["prefix_hit"] = {**bench.prefix_hit(hit), "floor": costs.decode_floor(1, hit, read)}
    result["resident_loaded_mb"] = resident_bytes() / 1e6
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    _show(result)


def _show(result: dict[str, Any]) -> None:
    console = Console(width=100)
    console.print(result["ceilings"])
    console.print(
        f"open {result['open_seconds']:.2f} s {result['startup_seconds']}, resident {result['resident_mb']:.0f} MB, "
        f"loaded {result['resident_loaded_mb']:.0f} MB"
    )
    table = Table("step", "ms", "floor ms", "of floor")
    rows = [(f"decode {r['batch']} × {r['context']}", r) for r in result["decode"]]
    rows += [(f"prefill {r['tokens']}", r) for r in result["prefill"]]
    rows.append((f"prefix hit {result['prefix_hit']['context']}", result["prefix_hit"]))
    for name, row in rows:
        fraction = row["floor"] / row["seconds"]
        table.add_row(name, f"{row['seconds'] * 1e3:.3f}", f"{row['floor'] * 1e3:.3f}", f"{fraction:.0%}")
    console.print(table)


if __name__ == "__main__":
    main()
