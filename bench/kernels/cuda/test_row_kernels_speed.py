"""Kernels of one row, or a few tokens, a program on Qwen3-4B shapes: time and GB/s."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from bench.kernels.cuda.graph_timing import bench_launches  # noqa: E402
from oi.codegen.cuda.tuning import rows_launch as rows  # noqa: E402

pytestmark = pytest.mark.gpu

H, V, Q, K, D = 2560, 151936, 32, 8, 128
TOKENS = [1, 64, 256, 8192]


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.bfloat16, device="cuda")


def randint(high: int, count: int) -> torch.Tensor:
    return torch.randint(0, high, (count,), dtype=torch.int32, device="cuda")


def record(benchmark: Any, launch: Any, moved: int) -> None:
    benchmark.extra_info["gbs"] = moved / bench_launches(benchmark, launch, 36) * 1e-3


@pytest.mark.parametrize("tokens", TOKENS)
def test_rms_norm(benchmark: Any, tokens: int) -> None:
    x, weight, y = randn(tokens, H), randn(H), randn(tokens, H)
    record(benchmark, lambda i: rows.rms_norm(x, weight, y, pdl=True), 4 * tokens * H)


@pytest.mark.parametrize("tokens", TOKENS)
def test_add_rms_norm(benchmark: Any, tokens: int) -> None:
    x, residual, z, y = (randn(tokens, H) for _ in range(4))
    weight = randn(H)
    record(benchmark, lambda i: rows.add_rms_norm(x, residual, weight, z, y, pdl=True), 8 * tokens * H)


@pytest.mark.parametrize("tokens", TOKENS)
def test_embedding(benchmark: Any, tokens: int) -> None:
    table, ids, y = randn(V, H), randint(V, tokens), randn(tokens, H)
    record(benchmark, lambda i: rows.embedding(ids, table, y, pdl=True), 4 * tokens * H)


@pytest.mark.parametrize("count", [1, 256])
def test_select_rows(benchmark: Any, count: int) -> None:
    x, picked, y = randn(8192, H), randint(8192, count), randn(count, H)
    record(benchmark, lambda i: rows.select_rows(x, picked, y, pdl=True), 4 * count * H)


@pytest.mark.parametrize("tokens", TOKENS)
def test_rope_angles(benchmark: Any, tokens: int) -> None:
    inv_freq = torch.rand(D // 2, device="cuda")
    positions, y = randint(40960, tokens), torch.empty(tokens, D, device="cuda")
    record(benchmark, lambda i: rows.rope_angles(positions, inv_freq, y, 1.0, pdl=True), 4 * tokens * (D + 1))


@pytest.mark.parametrize(("per_program", "warps"), [(1, 1), (1, 2), (4, 4), (8, 4)])
@pytest.mark.parametrize("tokens", TOKENS)
def test_qkv_norm_rope_write(benchmark: Any, tokens: int, per_program: int, warps: int) -> None:
    qkv, q_weight, k_weight, q = randn(tokens, (Q + 2 * K) * D), randn(D), randn(D), randn(tokens, Q, D)
    kv = randn(-(-tokens // 16), 36, 2, K, 16, D)
    slots = torch.randperm(kv.shape[0] * 16, device="cuda")[:tokens].to(torch.int32)
    angles = torch.rand(tokens, D, device="cuda")

    def launch(layer: int) -> None:
        rows.qkv_norm_rope_write(qkv, q_weight, k_weight, angles, slots, kv, q, layer, True, per_program, warps)

    record(benchmark, launch, 4 * tokens * (Q + 2 * K) * D)
