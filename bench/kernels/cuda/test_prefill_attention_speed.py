"""Prefill attention on Qwen3-4B shapes against torch SDPA: time, TFLOP/s, ratio in the same run."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from bench.kernels.cuda.graph_timing import bench_launches, event_us  # noqa: E402
from oi.codegen.cuda.kernels.attention import Prefill  # noqa: E402
from oi.codegen.cuda.tuning.attention_launch import PrefillLaunch  # noqa: E402
from oi.codegen.cuda.tuning.attention_table import choose_prefill  # noqa: E402
from tests.kernels.cuda.paged import make_call  # noqa: E402

pytestmark = pytest.mark.gpu

LAYERS = 36
CONFIGS = [
    None,
    Prefill(hopper=True, block=128, stages=2, num_warps=4, programs=132),
    Prefill(hopper=False, block=64, stages=3, num_warps=8, programs=132),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["chosen", "hopper", "portable"])
@pytest.mark.parametrize(
    ("tokens", "context"),
    [(1024, 1024), (4096, 4096), (16384, 16384), (2048, 10240), (256, 16384), (16, 16384)],
)
def test_prefill(benchmark: Any, tokens: int, context: int, config: Prefill | None) -> None:
    call = make_call([tokens], [context], layers=LAYERS, poison=False)
    launch = PrefillLaunch(call, config or choose_prefill(tokens), pdl=True)
    launch.plan()

    def run(layer: int) -> None:
        call.layer = layer
        launch.run()

    us = bench_launches(benchmark, run, 4 if tokens > 2048 else 12)
    pairs = tokens * (context - tokens) + tokens * (tokens + 1) // 2
    benchmark.extra_info["tflops"] = 4 * 128 * 32 * pairs / us * 1e-6
    if tokens == context:
        q, k, v = (torch.randn(1, 32, tokens, 128, dtype=torch.bfloat16, device="cuda") for _ in range(3))

        def sdpa() -> None:
            for _ in range(4):
                torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

        sdpa()
        benchmark.extra_info["sdpa_us"] = event_us(sdpa) / 4
        benchmark.extra_info["ratio_to_sdpa"] = benchmark.extra_info["sdpa_us"] / us
