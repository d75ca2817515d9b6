"""Check and time variants of the attention kernels on this machine's GPU.

    python bench/kernels/cuda/sweep_attention.py check|time decode|prefill|hopper|sdpa|small [results.json]

Times are medians over graph replays, each graph one launch a layer of a 36-layer cache, so that L2 is cold.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "tests/kernels/cuda"))
import paged

LAYERS = 36
DECODE = [  # block, stages, warps, programs
    (64, 3, 4, 8),
    (64, 3, 4, 64),
    (64, 3, 4, 132),
    (32, 4, 4, 132),
    (64, 3, 4, 264),
    (64, 3, 4, 396),
    (32, 4, 4, 396),
    (32, 4, 4, 528),
]
PORTABLE = [(64, 3, 8), (128, 2, 8), (64, 2, 4)]


def graph_us(launch: Callable[[int], None], count: int, replays: int = 7) -> float:
    """Median microseconds of one launch in a graph of `count`."""
    torch.cuda.synchronize()  # plans are read before the wait on the launch before
    launch(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            launch(i)
    graph.replay()
    times = []
    for _ in range(replays):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / count)
    return statistics.median(times)


def decode(mode: str) -> list[dict]:
    rows = []
    if mode == "check":
        for block, stages, warps, programs in DECODE:
            torch.manual_seed(block + stages)
            for heads in ((32, 8), (16, 8), (40, 8)) if block == 64 and programs == 264 else ((32, 8),):
                lens = [1, 0, 1, 5, 1, 70, 1, 1, 1, 3]
                contexts = [3700, 0, 1, 50, 130, 200, 64, 16, 16000, 3]
                case = paged.make_case(lens, contexts, device="cuda", heads=heads, spare_tokens=2)
                run = paged.Decode(case, block, stages, warps, programs)
                run.plan()
                run.run()
                first = run.y.clone()
                run.run()
                y, own = paged.reference(case, "decode")
                rows.append(
                    dict(
                        kernel="decode",
                        config=(block, stages, warps, programs),
                        heads=heads,
                        error=paged.relative_error(run.y[own], y[own]),
                        untouched=bool(run.y[~own].isnan().all()),
                        same=bool((first[own] == run.y[own]).all()),
                        arrivals=int(run.arrivals.abs().sum()),
                    )
                )
        return rows
    for batch, context in [
        (1, 400), (1, 1024), (1, 4096), (1, 16384), (8, 400), (8, 4096), (64, 400), (64, 1100), (256, 400), (256, 1100),
    ]:  # fmt: skip
        case = paged.make_case([1] * batch, [context] * batch, device="cuda", layers=LAYERS, poison=False)
        floor = 4096 * batch * context / 3.11e12 * 1e6
        for block, stages, warps, programs in DECODE:
            if batch > 1 and programs < 132:
                continue
            run = paged.Decode(case, block, stages, warps, programs, pdl=True)
            run.plan()

            def launch(i: int, run: paged.Decode = run, case: paged.Case = case) -> None:
                case.layer = i
                run.run()

            us = graph_us(launch, LAYERS)
            rows.append(
                dict(kernel="decode", batch=batch, context=context, config=(block, stages, warps, programs), us=us, of_floor=floor / us)
            )
        del case
    return rows


PREFILL_CASES = [
    ([130, 1, 40, 0, 2, 33], [130, 900, 300, 0, 2, 1000]),
    ([17], [16400]),
    ([500, 600], [500, 3000]),
    ([1111], [1111]),
]


def prefill(mode: str, hopper: bool) -> list[dict]:
    rows = []
    variants = [dict(block=128, stages=2, pack=4)] if hopper else [dict(block=b, stages=s, warps=w) for b, s, w in PORTABLE]
    if mode == "check":
        for variant in variants:
            for lens, contexts in PREFILL_CASES:
                case = paged.make_case(lens, contexts, device="cuda", spare_tokens=5)
                run = paged.Prefill(case, **variant)
                run.plan()
                run.run()
                first = run.y.clone()
                run.run()
                y, own = paged.reference(case, "prefill")
                rows.append(
                    dict(
                        kernel="hopper" if hopper else "portable",
                        config=tuple(variant.values()),
                        lens=lens,
                        splits=run.plan_buffer[:2].tolist(),
                        error=paged.relative_error(run.y[own], y[own]),
                        untouched=bool(run.y[~own].isnan().all()),
                        same=bool((first[own] == run.y[own]).all()),
                        arrivals=int(run.arrivals.abs().sum()),
                    )
                )
                print(rows[-1], flush=True)
        return []
    for tokens, context in [(1024, 1024), (4096, 4096), (16384, 16384), (2048, 10240), (16, 16384), (256, 16384)]:
        case = paged.make_case([tokens], [context], device="cuda", layers=LAYERS, poison=False)
        pairs = tokens * (context - tokens) + tokens * (tokens + 1) // 2
        for variant in variants:
            run = paged.Prefill(case, **variant, pdl=True)
            run.plan()

            def launch(i: int, run: paged.Prefill = run, case: paged.Case = case) -> None:
                case.layer = i
                run.run()

            print(run.plan_buffer[:2].tolist(), flush=True)
            us = graph_us(launch, 4 if tokens > 2048 else 12, 5)
            flops = 4 * 128 * 32 * pairs
            rows.append(
                dict(
                    kernel="hopper" if hopper else "portable",
                    tokens=tokens,
                    context=context,
                    config=tuple(variant.values()),
                    us=us,
                    tflops=flops / us / 1e6,
                )
            )
        del case
    return rows


def sdpa() -> list[dict]:
    rows = []
    for tokens in (1024, 4096, 16384):
        q, k, v = (torch.randn(1, 32, tokens, 128, dtype=torch.bfloat16, device="cuda") for _ in range(3))
        us = graph_us(lambda i: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True), 4, 5)
        flops = 4 * 128 * 32 * tokens * (tokens + 1) // 2
        rows.append(dict(kernel="sdpa", tokens=tokens, us=us, tflops=flops / us / 1e6))
    return rows


def main() -> None:
    mode, section = sys.argv[1:3]
    torch.manual_seed(torch.seed() % 2**31)
    rows = {
        "decode": lambda: decode(mode),
        "prefill": lambda: prefill(mode, hopper=False),
        "hopper": lambda: prefill(mode, hopper=True),
        "sdpa": sdpa,
    }[section]()
    for row in rows:
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
    if len(sys.argv) > 3:
        Path(sys.argv[3]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
