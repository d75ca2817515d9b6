"""Products of one layer on exact Qwen3 shapes, weights cold in L2: time, rate, fraction of a ceiling, ratio to cuBLAS.

Ceilings are measured in the same run: reading memory for few rows, a large cuBLAS product for many.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from oi.codegen.cuda.kernels.gemm import Gemm  # noqa: E402
from oi.codegen.cuda.tuning.gemm_candidates import LM_HEAD, QWEN3  # noqa: E402
from oi.codegen.cuda.tuning.gemm_launch import Scratch, launch  # noqa: E402
from oi.codegen.cuda.tuning.gemm_table import choose_gemm  # noqa: E402
from oi.codegen.cuda.tuning.gemm_timing import cublas, timed, weights  # noqa: E402

pytestmark = pytest.mark.gpu

CASES = [
    (model, name, rows)
    for model in QWEN3
    for name in (*QWEN3[model], "lm_head")
    for rows in (1, 8, 16, 64, 128, 256, 1024, 2048, 8192)
    if name != "lm_head" or rows <= 256
]


@cache
def read_bandwidth() -> float:
    """Bytes a second of summing 4 GB."""
    data = torch.ones(1 << 30, dtype=torch.float32, device="cuda")
    return data.nbytes / (timed(lambda: data.sum(), 1) * 1e-6)


@cache
def tensor_rate() -> float:
    """FLOP/s of cuBLAS on 8192 × 8192 × 8192, random bf16."""
    x, w = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    return 2 * 8192**3 / (timed(lambda: x @ w.T, 1) * 1e-6)


@pytest.mark.parametrize(("model", "name", "rows"), CASES, ids=lambda v: str(v))
def test_gemm(benchmark: Any, model: str, name: str, rows: int) -> None:
    gemm: Gemm = LM_HEAD[model] if name == "lm_head" else QWEN3[model][name]
    layers = weights(gemm, max(2, min(24, (1 << 30) // (gemm.weight_rows * gemm.k * 2))))
    x = torch.randn(rows, gemm.k, dtype=torch.bfloat16, device="cuda")
    y = torch.empty(rows, gemm.n, dtype=torch.float32 if name == "lm_head" else torch.bfloat16, device="cuda")
    choice, scratch = choose_gemm(gemm, rows), Scratch()

    def run() -> None:
        for w in layers:
            launch(gemm, choice.config, x, w, y, scratch)

    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    benchmark.pedantic(replay, rounds=20, warmup_rounds=2)
    seconds = timed(run, len(layers)) * 1e-6
    moved = layers[0].nbytes + x.nbytes + y.nbytes
    operations = 2 * rows * gemm.weight_rows * gemm.k
    floor = max(moved / read_bandwidth(), operations / tensor_rate())
    benchmark.extra_info.update(
        us=seconds * 1e6,
        gb_per_s=moved / seconds * 1e-9,
        tflop_per_s=operations / seconds * 1e-12,
        fraction_of_ceiling=floor / seconds,
        of_cublas=cublas(rows, layers) * 1e-6 / seconds,
        config=str(choice.config),
        tuned=choice.tuned,
    )
