"""Decode attention on Qwen3-4B shapes (32/8 heads of 128, 36 layers in turn): time and fraction of the bytes floor."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from bench.kernels.cuda.graph_timing import bench_launches, read_bandwidth  # noqa: E402
from oi.codegen.cuda.kernels.attention import Decode  # noqa: E402
from oi.codegen.cuda.tuning.attention_launch import DecodeLaunch  # noqa: E402
from oi.codegen.cuda.tuning.attention_table import choose_decode  # noqa: E402
from tests.kernels.cuda.paged import make_call  # noqa: E402

pytestmark = pytest.mark.gpu

LAYERS = 36
SIZES = [(b, c) for b in (1, 8, 64, 256) for c in (400, 1100, 4096, 16384) if b * c <= 300_000]
CANDIDATES = [
    Decode(False, 32, 4, 4, 132),
    Decode(False, 32, 4, 4, 396),
    Decode(False, 64, 3, 4, 396),
    Decode(True, 64, 2, 4, 64),
    Decode(True, 64, 3, 4, 132),
    Decode(True, 64, 3, 4, 132, early=False),
    Decode(True, 64, 3, 4, 264),
]


@pytest.mark.parametrize("config", [None, *CANDIDATES], ids=lambda c: "chosen" if c is None else str(c))
@pytest.mark.parametrize(("batch", "context"), SIZES)
def test_decode(benchmark: Any, batch: int, context: int, config: Decode | None) -> None:
    call = make_call([1] * batch, [context] * batch, layers=LAYERS, poison=False)
    launch = DecodeLaunch(call, config or choose_decode(batch), pdl=True)
    launch.plan()

    def run(layer: int) -> None:
        call.layer = layer
        launch.run()

    us = bench_launches(benchmark, run, LAYERS)
    read = 2 * 2 * 8 * 128 * batch * context
    benchmark.extra_info["of_floor"] = read / read_bandwidth() / us * 1e6


@pytest.mark.parametrize("sequences", [1, 256])
def test_plan(benchmark: Any, sequences: int) -> None:
    call = make_call([1] * sequences, [1000] * sequences, layers=1, poison=False)
    launch = DecodeLaunch(call, choose_decode(sequences))
    bench_launches(benchmark, lambda i: launch.plan(), 16)
