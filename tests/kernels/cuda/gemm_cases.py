"""Random products with their results, and what a kernel's result must be like."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, torch

# isort: split

from oi.codegen.cuda.kernels.gemm import Gemm

__all__ = ["assert_chain_in_graph", "assert_close", "random_case"]


def random_case(gemm: Gemm, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, weight and the float64 result."""
    x = torch.randn(rows, gemm.k, device=DEVICE).to(DTYPE)
    w = (torch.randn(gemm.weight_rows, gemm.k, device=DEVICE) * gemm.k**-0.5).to(DTYPE)
    y = x.double() @ w.double().T
    if gemm.swiglu:
        y = torch.nn.functional.silu(y[:, : gemm.n]) * y[:, gemm.n :]
    return x, w, y


def assert_close(y: torch.Tensor, expected: torch.Tensor, f32_step: float = 2.0**-18) -> None:
    """Within the rounding of y's dtype, element by element and as a whole."""
    step = 2.0**-8 if y.dtype == torch.bfloat16 else f32_step
    torch.testing.assert_close(y.double(), expected, rtol=step, atol=1e-4)
    assert (y.double() - expected).norm() < step * expected.norm()


def assert_chain_in_graph(
    product: Callable[[torch.Tensor, torch.Tensor], None], x: torch.Tensor, w: torch.Tensor
) -> None:
    """64 launches of `product` (x, y) in a graph: each may start before the one ahead, whose y it reads, has ended."""
    ys = [x] + [torch.empty_like(x) for _ in range(64)]

    def forward() -> None:
        for before, after in itertools.pairwise(ys):
            product(before, after)

    forward()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    for y in ys[1:]:
        y.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    for before, after in itertools.pairwise(ys):
        assert_close(after, before.double() @ w.double().T)
