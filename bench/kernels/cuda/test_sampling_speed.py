"""Greedy, sampling and log-probabilities over Qwen3's vocabulary: time and fraction of reading the logits once."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from bench.kernels.cuda.graph_timing import bench_launches, read_bandwidth  # noqa: E402
from oi.codegen.cuda.kernels.sampling import Greedy, LogProbs, Sample  # noqa: E402
from oi.codegen.cuda.tuning.sampling_launch import GreedyLaunch, LogProbsLaunch, SampleLaunch  # noqa: E402

pytestmark = pytest.mark.gpu

V = 151936
ROWS = [1, 8, 64, 256]
CUTS = {  # temperature, top_k, top_p, min_p
    "greedy": (0.0, 0, 1.0, 0.0),
    "plain": (1.0, 0, 1.0, 0.0),
    "qwen3": (0.6, 20, 0.95, 0.0),
    "top_k": (1.0, 50, 1.0, 0.0),
    "min_p": (1.0, 0, 1.0, 0.05),
    "top_p": (1.0, 0, 0.95, 0.0),
    "top_p flat": (5.0, 0, 0.9, 0.0),
}


def logits_like(rows: int) -> torch.Tensor:
    """A broad bulk, and some tens of likely tokens."""
    logits = torch.randn(rows, V, device="cuda") * 2.5
    logits.scatter_add_(1, torch.randint(0, V, (rows, 60), device="cuda"), torch.full((rows, 60), 8.0, device="cuda"))
    return logits


def record(benchmark: Any, launch: Any, rows: int) -> None:
    us = bench_launches(benchmark, lambda i: launch.run(), 4)
    benchmark.extra_info["of_floor"] = 4 * rows * V / read_bandwidth() / us * 1e6


@pytest.mark.parametrize("chunk", [2048, 4096, 8192])
@pytest.mark.parametrize("rows", ROWS)
def test_greedy(benchmark: Any, rows: int, chunk: int) -> None:
    record(benchmark, GreedyLaunch(logits_like(rows), Greedy(chunk), pdl=True), rows)


@pytest.mark.parametrize("warps", [4, 8])
@pytest.mark.parametrize("rows", ROWS)
def test_log_probs(benchmark: Any, rows: int, warps: int) -> None:
    token = torch.zeros(rows, dtype=torch.int32, device="cuda")
    record(benchmark, LogProbsLaunch(logits_like(rows), token, LogProbs(num_warps=warps), pdl=True), rows)


@pytest.mark.parametrize("warps", [4, 8, 16])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("rows", ROWS)
def test_sample(benchmark: Any, rows: int, cut: str, warps: int) -> None:
    def every(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((rows,), value, dtype=dtype, device="cuda")

    f32, i32 = torch.float32, torch.int32
    temperature, top_k, top_p, min_p = CUTS[cut]
    operands = {
        "logits": logits_like(rows),
        "edit_starts": every(0, i32),
        "edit_lens": every(0, i32),
        "edit_tokens": every(0, i32),
        "edit_scale": every(1, f32),
        "edit_add": every(0, f32),
        "temperature": every(temperature, f32),
        "top_k": every(top_k, i32),
        "top_p": every(top_p, f32),
        "min_p": every(min_p, f32),
        "uniform": torch.rand(rows, device="cuda"),
    }
    record(benchmark, SampleLaunch(operands, Sample(num_warps=warps), pdl=True), rows)
