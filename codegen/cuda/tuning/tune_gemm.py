"""Find the fastest launch of each GEMM on the GPU at hand: `python -m oi.codegen.cuda.tuning.tune_gemm --out FILE`.

Every candidate is compiled, checked (outputs poisoned, random inputs, float32 reference, two runs bit-identical) and
timed in a CUDA graph over as many different weights as the layers of a model, so that L2 holds none of them; cuBLAS in
the same way beside it. Kernels overlap their neighbours, so the fastest few of each product then compete within whole
decode layers, norms and attention included; those of prefill, which the GPU's power bounds, within a chain of products
that runs for longer. The record goes to FILE; `write_gemm_table` makes the table from it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton

from oi.codegen.cuda.kernels.gemm import Gemm
from oi.codegen.cuda.tuning.decode_layers import DecodeLayers
from oi.codegen.cuda.tuning.gemm_candidates import LAYERS, LM_HEAD, QWEN3, candidates
from oi.codegen.cuda.tuning.gemm_compile import Item, compile_all, kernel_key, unique
from oi.codegen.cuda.tuning.gemm_launch import Config, Scratch, launch
from oi.codegen.cuda.tuning.gemm_table import KERNELS
from oi.codegen.cuda.tuning.gemm_timing import Head, chain, check, cublas, dtype_of, timed, weights

KV_HEADS = 8
MOST_DECODE_ROWS = 256
"""More are prefill: no logits of them, and they are not timed within layers."""


def tune(
    gemm: Gemm, configs: Sequence[Config], rows: int, layers: Sequence[torch.Tensor], scratch: Scratch
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


def config_of(record: Mapping[str, Any]) -> Config:
    fields = {k: v for k, v in record.items() if k not in ("kind", "us", "error")}
    return KERNELS[record["kind"]](**fields)


def choose_together(
    us: Callable[[Mapping[str, Config]], float], candidates: Mapping[str, list[Config]], tries: int = 4
) -> tuple[dict[str, Config], float]:
    """(what makes all products together fastest, its microseconds): each one's next best, one after the other."""
    configs = {name: found[0] for name, found in candidates.items()}
    best = us(configs)
    for name in ("swiglu", "down", "qkv", "o"):
        for config in candidates[name][1:tries]:
            other = {**configs, name: config}
            if (found := us(other)) < best:
                best, configs = found, other
    return configs, us(configs)


class Tuner:
    """Measures a model's products; `record` holds all that was seen."""

    def __init__(self, model: str, usable: set[Item]) -> None:
        """`usable`: keys of the kernels that compiled and ended."""
        self.gemms, self.head = QWEN3[model], LM_HEAD[model]
        self.usable = usable
        self.scratch = Scratch(96 << 20)
        self.layers = {name: weights(gemm, LAYERS[model]) for name, gemm in self.gemms.items()}
        self.head_weight = weights(self.head, 1)
        self.record: dict[str, Any] = {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "triton": triton.__version__,
            "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
            "command": sys.argv,
            "model": model,
            "gemms": [],
            "chains": [],
        }

    def tune(self, rows: int) -> None:
        count = len(self.layers["qkv"]) if rows <= MOST_DECODE_ROWS else 8 if rows <= 2048 else 3
        few = {name: ws[:count] for name, ws in self.layers.items()}
        entries = {
            name: self._alone(name, gemm, rows, self.head_weight * 3 if name == "lm_head" else few[name])
            for name, gemm in products(self.gemms, self.head, rows).items()
        }
        self.record["gemms"] += entries.values()
        best = {name: [config_of(r) for r in entry["configs"]] for name, entry in entries.items()}
        if all(best.values()):
            self.record["chains"].append(self._together(rows, few, best, entries))

    def _alone(self, name: str, gemm: Gemm, rows: int, ws: list[torch.Tensor]) -> dict[str, Any]:
        """One product: cuBLAS and every candidate, the fastest first."""
        before = cublas(rows, ws)
        configs = [c for c in candidates(gemm, rows) if kernel_key((gemm, c, rows)) in self.usable]
        records = tune(gemm, configs, rows, ws, self.scratch)
        base = statistics.mean((before, cublas(rows, ws)))
        fastest = " ".join(f"{config_of(r)}:{r['us']:.1f}" for r in records[:3])
        print(f"M={rows} {name} cuBLAS {base:.1f} {fastest}", flush=True)
        return {"rows": rows, "name": name, **asdict(gemm), "cublas_us": base, "configs": records}

    def _together(
        self,
        rows: int,
        few: Mapping[str, Sequence[torch.Tensor]],
        best: Mapping[str, list[Config]],
        entries: Mapping[str, dict[str, Any]],
    ) -> dict[str, Any]:
        """All products of the layers one after another; marks in `entries` which launch of each is `chosen`."""
        entry: dict[str, Any] = {"rows": rows, "layers": len(few["qkv"])}
        of_layers = {name: best[name] for name in self.gemms}
        if rows <= MOST_DECODE_ROWS:
            within = DecodeLayers(self.gemms, few, rows, KV_HEADS, 1024 if rows == 1 else 400, self.scratch)
            found, us = choose_together(lambda c: timed(partial(within.run, c), 1, least=7), of_layers)
            entry["decode_layers_us"] = us
            del within  # its cache is large
        else:
            found, _ = choose_together(lambda c: chain(self.gemms, c, rows, few, self.scratch), of_layers)
        chosen = {**{name: of_one[0] for name, of_one in best.items()}, **found}
        for name, config in chosen.items():
            entries[name]["chosen"] = best[name].index(config)
        entry["us"] = chain(self.gemms, chosen, rows, few, self.scratch)
        entry["cublas_us"] = chain(self.gemms, None, rows, few, self.scratch)
        if rows <= MOST_DECODE_ROWS:
            head = Head(self.head, self.head_weight[0])
            entry["with_lm_head_us"] = chain(self.gemms, chosen, rows, few, self.scratch, head)
            entry["cublas_with_lm_head_us"] = chain(self.gemms, None, rows, few, self.scratch, head)
        print("  ", entry, flush=True)
        return entry


def products(gemms: Mapping[str, Gemm], head: Gemm, rows: int) -> dict[str, Gemm]:
    """Of a step of so many rows."""
    return {**gemms, **({"lm_head": head} if rows <= MOST_DECODE_ROWS else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=QWEN3, default="4B")
    parser.add_argument("--decode", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--prefill", type=int, nargs="*", default=[1024, 2048, 8192])
    parser.add_argument("--processes", type=int, default=15)
    parser.add_argument("--compile-seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    all_rows = sorted({*args.decode, *args.prefill})
    work = unique(
        (gemm, config, rows)
        for rows in all_rows
        for gemm in products(QWEN3[args.model], LM_HEAD[args.model], rows).values()
        for config in candidates(gemm, rows)
    )
    start = time.monotonic()
    launched = compile_all(work, args.processes, args.compile_seconds)
    print(f"compiled {len(launched)} of {len(work)} in {time.monotonic() - start:.0f} s", flush=True)

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    tuner = Tuner(args.model, {kernel_key(item) for item in launched})
    for rows in all_rows:
        tuner.tune(rows)
        args.out.write_text(json.dumps(tuner.record))


if __name__ == "__main__":
    main()
