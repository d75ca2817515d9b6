"""Find the fastest launch of each GEMM on the GPU at hand: `python -m oi.codegen.cuda.tuning.tune_gemm --out FILE`.

Every candidate is compiled, checked (outputs poisoned, random inputs, float32 reference, two runs bit-identical) and
timed in a CUDA graph over as many different weights as the layers of a model, so that L2 holds none of them; cuBLAS in
the same way beside it. Kernels overlap their neighbours, so the fastest few of each product then compete within whole
decode layers, norms and attention included. The record goes to FILE; `write_gemm_table` makes the table from it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
import triton

from oi.codegen.cuda.kernels.gemm import Gemm, Gemv, Portable, Prefill, Skinny, block_m
from oi.codegen.cuda.tuning.decode_layers import DecodeLayers
from oi.codegen.cuda.tuning.gemm_launch import Config, Scratch, launch

Item = tuple[Gemm, Config, int]
LAYERS = {"4B": 36, "8B": 36, "0.6B": 28}
KV_HEADS = 8
KINDS: dict[str, type[Config]] = {"gemv": Gemv, "skinny": Skinny, "prefill": Prefill, "portable": Portable}
QWEN3 = {
    "4B": {"qkv": Gemm(6144, 2560), "o": Gemm(2560, 4096), "swiglu": Gemm(9728, 2560, True), "down": Gemm(2560, 9728)},
    "8B": {
        "qkv": Gemm(6144, 4096),
        "o": Gemm(4096, 4096),
        "swiglu": Gemm(12288, 4096, True),
        "down": Gemm(4096, 12288),
    },
    "0.6B": {
        "qkv": Gemm(4096, 1024),
        "o": Gemm(1024, 2048),
        "swiglu": Gemm(3072, 1024, True),
        "down": Gemm(1024, 3072),
    },
}
LM_HEAD = {name: Gemm(151936, k, f32=True) for name, k in (("4B", 2560), ("8B", 4096), ("0.6B", 1024))}


def gemv_candidates(gemm: Gemm, rows: int) -> list[Gemv]:
    depths = (1, 2, 3, 4, 5, 8) if rows == 1 else (2, 3) if rows <= 4 else ()
    return [Gemv(2, depth, 2) for depth in depths if depth <= gemm.k // 512]


def skinny_candidates(gemm: Gemm, rows: int) -> list[Skinny]:
    """Rings of half an SM and of a whole one; one program for each multiprocessor, or as many as cut tiles evenly."""
    found = []
    parts = 2 if gemm.swiglu else 1
    sums = parts * block_m(rows) // 2  # registers of a thread
    for block_n, block_k, room in ((64, 128, 107), (64, 64, 107), (64, 128, 218), (128, 64, 218)):
        stage = Skinny(block_n, block_k, 1, 1).shared_bytes(gemm, rows)
        stages = min((room << 10) // stage, 10)
        if stages < 2 or sums > 128 or (block_n == 128) != (sums == 128 and parts == 1 and room == 218):
            continue
        if rows <= 32 and block_k == 64:
            continue
        tiles = -(-gemm.n // block_n)
        even = [tiles * s for s in range(1, 7) if 90 <= tiles * s <= 152]
        found += [Skinny(block_n, block_k, stages, p) for p in (132, *even)]
    return list(dict.fromkeys(found))


def portable_candidates(gemm: Gemm, rows: int) -> list[Portable]:
    """Tiles of all rows or half of them, their sums split to fill a GPU of 132 multiprocessors once or nearly twice."""
    if gemm.f32 or not 64 <= rows <= 512:
        return []
    found = []
    for block_m_, block_n, stages in ((64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 128, 4)):
        if not min(rows // 2, 128) <= block_m_ <= rows:
            continue
        columns = block_n // 2 if gemm.swiglu else block_n
        tiles = Portable(block_m_, columns, 64, stages).tiles(gemm, rows)
        for splits in {max(1, 132 // tiles), max(1, 264 // tiles)}:
            if tiles * splits <= 264 and splits <= 8:
                found.append(Portable(block_m_, columns, 64, stages, splits))
    return found


def prefill_candidates(gemm: Gemm) -> list[Prefill]:
    linear = ((128, 256, 0), (128, 128, 128), (128, 128, 64), (128, 128, 32), (128, 128, 0), (256, 128, 32))
    tiles = ((128, 128, 128), (128, 64, 64)) if gemm.swiglu else linear
    return [Prefill.of_tile(gemm, *tile) for tile in tiles]


def timed(run: Callable[[], None], launches: int, seconds: float = 0.012, least: int = 5) -> float:
    """Median microseconds a launch, of a graph that holds one `run` of `launches`."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times: list[float] = []
    while len(times) < least or (sum(times) < 1000 * seconds and len(times) < 50):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times) * 1000 / launches


def dtype_of(gemm: Gemm) -> torch.dtype:
    return torch.float32 if gemm.f32 else torch.bfloat16


def reference(gemm: Gemm, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """float32 [M, n]."""
    y = x.float() @ w.float().T
    return torch.nn.functional.silu(y[:, : gemm.n]) * y[:, gemm.n :] if gemm.swiglu else y


def check(gemm: Gemm, config: Config, rows: int, w: torch.Tensor, scratch: Scratch) -> float:
    """Relative error; infinite where two runs differ, an element was left out, or one is off by more than rounding."""
    x = torch.randn(rows, gemm.k, dtype=torch.bfloat16, device="cuda")
    ys = []
    for _ in range(2):
        y = torch.full((rows, gemm.n), torch.nan, dtype=dtype_of(gemm), device="cuda")
        scratch.partial.fill_(torch.nan)
        launch(gemm, config, x, w, y, scratch)
        ys.append(y)
    expected = reference(gemm, x, w)
    error = (ys[0].float() - expected).norm() / expected.norm()
    close = ((ys[0].float() - expected).abs() <= expected.abs() / 128 + 0.004 * expected.std()).all()
    same = torch.equal(ys[0], ys[1])
    return float(error) if same and bool(close) and not bool(scratch.tickets.any()) else float("inf")


def weights(gemm: Gemm, count: int) -> list[torch.Tensor]:
    """Random weights of the magnitude that keeps activations of order 1."""
    return [
        torch.empty(gemm.weight_rows, gemm.k, dtype=torch.bfloat16, device="cuda").normal_(0, gemm.k**-0.5)
        for _ in range(count)
    ]


def _compile(work: Sequence[Item], done: SimpleQueue[Item]) -> None:
    scratch = Scratch()
    for gemm, config, rows in work:
        try:
            x = torch.zeros(rows, gemm.k, dtype=torch.bfloat16, device="cuda")
            w = torch.zeros(gemm.weight_rows, gemm.k, dtype=torch.bfloat16, device="cuda")
            y = torch.zeros(rows, gemm.n, dtype=dtype_of(gemm), device="cuda")
            launch(gemm, config, x, w, y, scratch)
            torch.cuda.synchronize()
            done.put((gemm, config, rows))
        except Exception as error:
            print("cannot launch", gemm, config, rows, repr(error)[:300], flush=True)


def compile_all(work: Sequence[Item], processes: int, seconds: float) -> set[Item]:
    """Fill Triton's cache on disk and launch each once; those that ended within `seconds`.

    Must run before this process touches the GPU.
    """
    context = multiprocessing.get_context("fork")
    done: SimpleQueue[Item] = context.SimpleQueue()
    children = [
        context.Process(target=_compile, args=(work[i::processes], done), daemon=True) for i in range(processes)
    ]
    for child in children:
        child.start()
    end = time.monotonic() + seconds
    found: set[Item] = set()
    while len(found) < len(work) and time.monotonic() < end and any(c.is_alive() for c in children):
        while not done.empty():
            found.add(done.get())
        time.sleep(0.1)
    while not done.empty():
        found.add(done.get())
    for child in children:
        child.kill()
    for item in work:
        if item not in found:
            print("never ended:", *item, flush=True)
    return found


def unique(work: Iterable[Item]) -> list[Item]:
    """One of each that compile to the same kernel."""
    found = {}
    for gemm, config, rows in work:
        found[kernel_key((gemm, config, rows))] = (gemm, config, rows)
    return list(found.values())


def kernel_key(item: Item) -> Item:
    """Equal for what compiles to the same kernel."""
    gemm, config, rows = item
    return gemm, config, block_m(rows) if isinstance(config, Skinny) else rows if isinstance(config, Gemv) else 0


def tune(
    gemm: Gemm, configs: Sequence[Config], rows: int, layers: list[torch.Tensor], scratch: Scratch
) -> list[dict[str, Any]]:
    """Records of all candidates that are right, the fastest first."""
    x = torch.randn(rows, gemm.k, dtype=torch.bfloat16, device="cuda")
    y = torch.empty(rows, gemm.n, dtype=dtype_of(gemm), device="cuda")
    records = []
    for config in configs:
        try:
            error = check(gemm, config, rows, layers[0], scratch)
            if not error < 3e-3:
                print("WRONG", gemm, config, rows, error, flush=True)
                continue

            def run(config: Config = config) -> None:
                for w in layers:
                    launch(gemm, config, x, w, y, scratch)

            us = timed(run, len(layers))
        except Exception as problem:
            print("FAILED", gemm, config, rows, repr(problem)[:200], flush=True)
            continue
        records.append({"kind": type(config).__name__.lower(), **asdict(config), "us": us, "error": error})
    return sorted(records, key=lambda r: r["us"])


def cublas(rows: int, layers: list[torch.Tensor]) -> float:
    """Microseconds of the product alone, without SiLU·mul."""
    x = torch.randn(rows, layers[0].shape[1], dtype=torch.bfloat16, device="cuda")
    y = torch.empty(rows, layers[0].shape[0], dtype=torch.bfloat16, device="cuda")

    def run() -> None:
        for w in layers:
            torch.mm(x, w.T, out=y)

    return timed(run, len(layers))


def config_of(record: dict[str, Any]) -> Config:
    fields = {k: v for k, v in record.items() if k not in ("kind", "us", "error")}
    return KINDS[record["kind"]](**fields)


def chain(
    gemms: dict[str, Gemm],
    configs: dict[str, Config] | None,
    rows: int,
    layers: dict[str, list[torch.Tensor]],
    scratch: Scratch,
    last: tuple[Gemm, Config | None, torch.Tensor] | None = None,
) -> float:
    """Microseconds of all layers' products, each reading what the one before wrote; with cuBLAS if configs is None."""
    outs = {
        name: torch.randn(rows, g.n if configs else g.weight_rows, dtype=torch.bfloat16, device="cuda")
        for name, g in gemms.items()
    }
    before = {"qkv": "down", "o": "qkv", "swiglu": "o", "down": "swiglu"}
    xs = {name: outs[before[name]].view(-1)[: rows * g.k].view(rows, g.k) for name, g in gemms.items()}
    head = (
        torch.empty(rows, last[0].n, dtype=torch.float32 if configs else torch.bfloat16, device="cuda")
        if last
        else None
    )

    def run() -> None:
        for i in range(len(layers["qkv"])):
            for name, gemm in gemms.items():
                if configs is None:
                    torch.mm(xs[name], layers[name][i].T, out=outs[name])
                else:
                    launch(gemm, configs[name], xs[name], layers[name][i], outs[name], scratch)
        if last is not None and head is not None:
            if last[1] is None:
                torch.mm(outs["down"], last[2].T, out=head)
            else:
                launch(last[0], last[1], outs["down"], last[2], head, scratch)

    return timed(run, 1, seconds=0.05, least=9)


def choose_within_layers(
    layers: DecodeLayers, candidates: dict[str, list[Config]], tries: int = 4
) -> tuple[dict[str, Config], float]:
    """(what makes the layers fastest, microseconds of all): each product's next best, one product after the other."""
    configs = {name: found[0] for name, found in candidates.items()}

    def us(configs: dict[str, Config]) -> float:
        return timed(lambda: layers.run(configs), 1, least=7)

    best = us(configs)
    for name in ("swiglu", "down", "qkv", "o"):
        for config in candidates[name][1:tries]:
            other = {**configs, name: config}
            if (found := us(other)) < best:
                best, configs = found, other
    return configs, us(configs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=QWEN3, default="4B")
    parser.add_argument("--decode", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--prefill", type=int, nargs="*", default=[1024, 2048, 8192])
    parser.add_argument("--processes", type=int, default=15)
    parser.add_argument("--compile-seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    gemms, head = QWEN3[args.model], LM_HEAD[args.model]

    def candidates(gemm: Gemm, rows: int) -> list[Config]:
        found: list[Config] = []
        if rows <= 256:
            found += [*gemv_candidates(gemm, rows), *skinny_candidates(gemm, rows), *portable_candidates(gemm, rows)]
        if rows > 128 and not gemm.f32:
            found += prefill_candidates(gemm)
        return found

    def products(rows: int) -> dict[str, Gemm]:
        return {**gemms, **({"lm_head": head} if rows <= 256 else {})}

    all_rows = sorted({*args.decode, *args.prefill})
    work: list[Item] = [(g, c, m) for m in all_rows for g in products(m).values() for c in candidates(g, m)]
    start = time.monotonic()
    launched = compile_all(unique(work), args.processes, args.compile_seconds)
    usable = {kernel_key(item) for item in launched}
    print(f"compiled {len(launched)} of {len(unique(work))} in {time.monotonic() - start:.0f} s", flush=True)

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    scratch = Scratch(96 << 20)
    layers = {name: weights(g, LAYERS[args.model]) for name, g in gemms.items()}
    head_weight = weights(head, 1)
    record: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "command": sys.argv,
        "model": args.model,
        "gemms": [],
        "chains": [],
    }
    for rows in all_rows:
        best: dict[str, list[Config]] = {}
        entries = {}
        count = len(layers["qkv"]) if rows <= 256 else 8 if rows <= 2048 else 3
        for name, gemm in products(rows).items():
            ws = head_weight * 3 if name == "lm_head" else layers[name][:count]
            base = cublas(rows, ws)
            configs = [c for c in candidates(gemm, rows) if kernel_key((gemm, c, rows)) in usable]
            records = tune(gemm, configs, rows, ws, scratch)
            base = statistics.mean((base, cublas(rows, ws)))
            entries[name] = {"rows": rows, "name": name, **asdict(gemm), "cublas_us": base, "configs": records}
            record["gemms"].append(entries[name])
            best[name] = [config_of(r) for r in records]
            fastest = " ".join(f"{config_of(r)}:{r['us']:.1f}" for r in records[:3])
            print(f"M={rows} {name} cuBLAS {base:.1f} {fastest}", flush=True)
        if not all(best.values()):
            continue
        few = {name: ws[:count] for name, ws in layers.items()}
        chosen = {name: found[0] for name, found in best.items()}
        entry: dict[str, Any] = {"rows": rows, "layers": count}
        if rows <= 256:
            within = DecodeLayers(gemms, few, rows, KV_HEADS, 1024 if rows == 1 else 400, scratch)
            found, entry["decode_layers_us"] = choose_within_layers(within, {n: best[n] for n in gemms})
            chosen.update(found)
            del within
        for name, config in chosen.items():
            entries[name]["chosen"] = next(i for i, c in enumerate(best[name]) if c == config)
        last = (head, chosen["lm_head"], head_weight[0]) if rows <= 256 else None
        entry["us"] = chain(gemms, chosen, rows, few, scratch)
        entry["cublas_us"] = chain(gemms, None, rows, few, scratch)
        if last:
            entry["with_lm_head_us"] = chain(gemms, chosen, rows, few, scratch, last)
            entry["cublas_with_lm_head_us"] = chain(gemms, None, rows, few, scratch, (head, None, head_weight[0]))
        record["chains"].append(entry)
        print("  ", entry, flush=True)
        args.out.write_text(json.dumps(record))


if __name__ == "__main__":
    main()
