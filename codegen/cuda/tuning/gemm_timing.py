"""Time products on the GPU at hand as a model runs them: in CUDA graphs, over weights that L2 does not hold."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from oi.codegen.cuda.kernels.gemm import Gemm
from oi.codegen.cuda.tuning.gemm_launch import Config, Scratch, launch

__all__ = ["Head", "chain", "check", "cublas", "dtype_of", "timed", "weights"]


class Head(NamedTuple):
    """The product behind the layers; its launch is `configs["lm_head"]`."""

    gemm: Gemm
    weight: torch.Tensor


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
    while len(times) < least or (sum(times) < 1000 * seconds and len(times) < 100):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times) * 1000 / launches


def dtype_of(gemm: Gemm) -> torch.dtype:
    return torch.float32 if gemm.f32 else torch.bfloat16


def weights(gemm: Gemm, count: int) -> list[torch.Tensor]:
    """Random weights of the magnitude that keeps activations of order 1."""
    return [
        torch.empty(gemm.weight_rows, gemm.k, dtype=torch.bfloat16, device="cuda").normal_(0, gemm.k**-0.5)
        for _ in range(count)
    ]


def _reference(gemm: Gemm, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
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
    expected = _reference(gemm, x, w)
    error = (ys[0].float() - expected).norm() / expected.norm()
    close = ((ys[0].float() - expected).abs() <= expected.abs() / 128 + 0.004 * expected.std()).all()
    same = torch.equal(ys[0], ys[1])
    return float(error) if same and bool(close) and not bool(scratch.tickets.any()) else float("inf")


def cublas(rows: int, layers: Sequence[torch.Tensor]) -> float:
    """Microseconds of the product alone, without SiLU·mul."""
    x = torch.randn(rows, layers[0].shape[1], dtype=torch.bfloat16, device="cuda")
    y = torch.empty(rows, layers[0].shape[0], dtype=torch.bfloat16, device="cuda")

    def run() -> None:
        for w in layers:
            torch.mm(x, w.T, out=y)

    return timed(run, len(layers))


def chain(
    gemms: Mapping[str, Gemm],
    configs: Mapping[str, Config] | None,
    rows: int,
    layers: Mapping[str, Sequence[torch.Tensor]],
    scratch: Scratch,
    head: Head | None = None,
) -> float:
    """Microseconds of all layers' products, each reading what the one before wrote; with cuBLAS if configs is None."""
    outs = {
        name: torch.randn(rows, g.n if configs else g.weight_rows, dtype=torch.bfloat16, device="cuda")
        for name, g in gemms.items()
    }
    before = {"qkv": "down", "o": "qkv", "swiglu": "o", "down": "swiglu"}
    xs = {name: outs[before[name]].view(-1)[: rows * g.k].view(rows, g.k) for name, g in gemms.items()}
    dtype = torch.float32 if configs else torch.bfloat16
    logits = torch.empty(rows, head.gemm.n, dtype=dtype, device="cuda") if head else None

    def run() -> None:
        for i in range(len(layers["qkv"])):
            for name, gemm in gemms.items():
                if configs is None:
                    torch.mm(xs[name], layers[name][i].T, out=outs[name])
                else:
                    launch(gemm, configs[name], xs[name], layers[name][i], outs[name], scratch)
        if head is None or logits is None:
            return
        if configs is None:
            torch.mm(outs["down"], head.weight.T, out=logits)
        else:
            launch(head.gemm, configs["lm_head"], outs["down"], head.weight, logits, scratch)

    return timed(run, 1, seconds=0.1, least=9)
