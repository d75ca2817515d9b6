"""How requests fare under load, simulated: the real engine and scheduler, a clock that is moved, step times out of
`bench.step`'s figures. Decides the policy of `runtime/pace.py`; what it says is no measurement.

    python -m bench.simulate bench/results/h100/step.json [--seconds 20] [--budgets 256 1024] [--json FILE]

For each load, steps beside sequences that decode are as large as the scheduler's own pace makes them, or of a fixed
size. TTFT, TPOT and ITL in milliseconds, as a client would see them if sockets, text and processes cost nothing.
Arrivals are the same for all of a load's rows.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.environment import describe
from bench.serve.client import Record
from bench.serve.load import Load, poisson
from bench.serve.statistics import summary
from bench.step_model import StepModel
from oi.codegen.cuda.buckets import buckets_of
from oi.runtime.batch import Batch
from oi.runtime.engine import Engine
from oi.runtime.geometry import Geometry
from oi.runtime.manifest import Limits
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.pace import Pace
from oi.runtime.runner import StepResult

__all__ = ["BUCKETS", "Request", "Simulation", "geometry"]

LIMITS = Limits(max_tokens=4096, max_sequences=256, max_edits=16384)
BUCKETS = tuple(buckets_of(LIMITS).tokens)
PAGES, PAGE_SIZE = 28_000, 16
"""What Qwen3-4B leaves of 80 GB."""
HOST_SECONDS = 0.4e-3
"""To schedule a step and to start it."""
PROMPT, OUTPUT = 1024, 128
QPS = (1, 4, 8, 16, 24, 32, 40, 48)
CLIENTS, ROUNDS = 256, 5
GREEDY = SamplingParams(temperature=0.0)
_FIGURES = ("n", "seconds", "out_tok_s", "ttft_ms", "tpot_ms", "itl_ms")


class Request(NamedTuple):
    due: float
    prompt: int
    output: int
    """Tokens."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class _Handle:
    rows: int
    done: float


class SimulatedRunner:
    """See runner.Runner. Computes nothing, in the time that a GPU would take; steps are queued behind each other."""

    overlaps = True
    copies = None

    def __init__(self, geometry: Geometry, model: StepModel, clock: Clock) -> None:
        self.geometry = geometry
        self._busy_until = 0.0
        self._model = model
        self._clock = clock

    def start(self, batch: Batch) -> _Handle:
        self._clock.now += HOST_SECONDS
        self._busy_until = max(self._clock.now, self._busy_until) + self._model.seconds(batch)
        return _Handle(len(batch.rows), self._busy_until)

    def finish(self, handle: _Handle) -> StepResult:
        self._clock.now = max(self._clock.now, handle.done)
        return StepResult(np.zeros(handle.rows, np.int32))


class _Fixed(Pace):
    """Takes steps of one size beside sequences that decode."""

    def __init__(self, geometry: Geometry, tokens: int) -> None:
        super().__init__(geometry)
        self._tokens = tokens

    def most_tokens(self, rows: int, keys: int) -> int:
        return max(self._tokens, rows + 1) if rows else super().most_tokens(rows, keys)


def geometry() -> Geometry:
    """Of Qwen3-4B on 80 GB."""
    return Geometry(
        max_model_len=40_960,
        max_num_seqs=LIMITS.max_sequences,
        max_step_tokens=LIMITS.max_tokens,
        max_edits=LIMITS.max_edits,
        pages=PAGES,
        page_size=PAGE_SIZE,
        vocab_size=1 << 30,
        token_buckets=BUCKETS,
        key_cost=147456 / 8.04e9,
    )


class Simulation:
    """One engine that serves one load. No two prompts have a page in common."""

    def __init__(self, model: StepModel, fixed: int | None = None) -> None:
        """`fixed`: tokens of every step beside sequences that decode, instead of the scheduler's own pace."""
        self._clock = Clock()
        self._engine = Engine(SimulatedRunner(geometry(), model, self._clock), self._clock)
        if fixed is not None:
            self._engine.scheduler.pace = _Fixed(geometry(), fixed)
        self._records: list[Record] = []

    def open_loop(self, requests: Iterable[Request]) -> list[Record]:
        """All of `requests`, each when it is due."""
        coming = deque(sorted(requests))
        while coming or self._engine.has_work:
            while coming and coming[0].due <= self._clock.now:
                self._submit(coming.popleft())
            if self._engine.has_work:
                self._step()
            else:
                self._clock.now = coming[0].due
        return self._records

    def closed_loop(self, clients: int, requests: Iterable[Request]) -> list[Record]:
        """`clients` of `requests` at a time; `due` is not looked at."""
        coming = deque(requests)
        free = clients
        while coming or self._engine.has_work:
            while coming and free:
                self._submit(coming.popleft()._replace(due=self._clock.now))
                free -= 1
            free += self._step()
        return self._records

    def _submit(self, request: Request) -> None:
        id_ = len(self._records)
        self._engine.submit(Submit(id_, array("i", [id_]) * request.prompt, GREEDY, request.output))
        self._records.append(Record(request.due, request.due, prompt_tokens=request.prompt))

    def _step(self) -> int:
        """Returns how many requests ended."""
        ended = 0
        for token in self._engine.step().tokens:
            record = self._records[token.id]
            record.chunks.append(self._clock.now)
            if token.finish is not None:
                record.ended, record.completion_tokens = self._clock.now, len(record.chunks)
                ended += 1
        return ended


def _simulate(model: StepModel, qps: int | None, seconds: float, fixed: int | None) -> dict[str, Any]:
    """`qps` arrivals a second, or CLIENTS that never pause."""
    simulation = Simulation(model, fixed)
    if qps is None:
        records = simulation.closed_loop(CLIENTS, [Request(0.0, PROMPT, OUTPUT)] * (CLIENTS * ROUNDS))
    else:
        dues = poisson(qps, max(60, round(qps * seconds)), random.Random(qps))
        records = simulation.open_loop([Request(due, PROMPT, OUTPUT) for due in dues])
    figures = summary(Load(records, 0.0))
    return {"qps": qps, "budget": fixed, **{name: figures[name] for name in _FIGURES}}


def _line(row: dict[str, Any]) -> str:
    load = f"{CLIENTS} clients" if row["qps"] is None else f"QPS {row['qps']}"
    ttft, tpot, itl = row["ttft_ms"], row["tpot_ms"], row["itl_ms"]
    figures = [(ttft["p50"], ttft["p99"]), (tpot["p50"], tpot["p99"]), (itl["p99"], itl["max"])]
    cells = [load, "paced" if row["budget"] is None else str(row["budget"]), f"{row['out_tok_s']:.0f}"]
    return f"| {' | '.join([*cells, *(f'{a:.1f} / {b:.1f}' for a, b in figures)])} |"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("step", type=Path, help="of bench.step")
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals, by the simulated clock")
    parser.add_argument("--budgets", type=int, nargs="*", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    model = StepModel(json.loads(options.step.read_text()), BUCKETS)
    rows = []
    print("| load | tokens a step | tok/s | TTFT p50 / p99 | TPOT p50 / p99 | ITL p99 / max |")
    print("|---|---|---|---|---|---|")
    for qps in (*QPS, None):
        for fixed in (None, *options.budgets):
            rows.append(_simulate(model, qps, options.seconds, fixed))
            print(_line(rows[-1]), flush=True)
    if options.json is not None:
        command = " ".join(["python -m bench.simulate", *(sys.argv[1:] if argv is None else argv)])
        options.json.write_text(json.dumps({**describe(), "command": command, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
