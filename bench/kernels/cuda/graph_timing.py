"""Time launches as a step runs them: in a CUDA graph, chained by dependent launches, on inputs cold in L2."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


def bench_launches(benchmark: Any, launch: Callable[[int], object], count: int) -> float:
    """Run `launch(0 … count - 1)` in one graph under pytest-benchmark; return the median microseconds of a launch.

    Give every launch inputs of its own where they would otherwise stay in L2.
    """
    torch.cuda.synchronize()  # what is read before the wait on the launch before must be complete
    launch(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            launch(i)

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    benchmark.pedantic(replay, rounds=5, warmup_rounds=2)
    microseconds = event_us(graph.replay) / count
    benchmark.extra_info["us"] = microseconds
    return microseconds


def event_us(run: Callable[[], object], rounds: int = 7) -> float:
    """Median device time."""
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


@cache
def read_bandwidth() -> float:
    """Bytes a second of summing 4 GB."""
    data = torch.ones(1 << 30, dtype=torch.float32, device="cuda")
    data.sum()
    return data.nbytes / event_us(data.sum) * 1e6
