"""`gemm_even` as 4B's layers launch it: what it compiles to, and that more programs than fit are refused. No GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("triton")

from oi.codegen.cuda.aot import compile_one
from oi.codegen.cuda.arch import ARCHS
from oi.codegen.cuda.lower_gemm import lower_gemm
from oi.codegen.errors import CompileError
from oi.ir import ops
from oi.ir.builder import Builder
from oi.ir.graph import Node
from oi.ir.types import DType, Sym, TensorType

HOPPER = ARCHS["sm_90"]


def product(n: int, k: int, swiglu: bool = False) -> Node:
    b = Builder("product")
    weights = [b.weight(f"w{i}", TensorType(DType.BF16, (n, k))) for i in range(2 if swiglu else 1)]
    x = b.input("x", TensorType(DType.BF16, (Sym("T"), k)))
    (node,) = b.build(b.emit(ops.SwigluLinear() if swiglu else ops.Linear(DType.BF16), x, *weights)).nodes
    return node


@pytest.mark.parametrize(
    ("node", "rows", "tickets", "partials"),
    [
        (product(2560, 9728), 200, 40, 3 * 256 * 64),
        (product(2560, 4096), 128, 40, 3 * 128 * 64),
        (product(9728, 2560, swiglu=True), 17, 20, 6 * 2 * 32 * 64),
    ],
    ids=["down", "o", "gate_up"],
)
def test_launch(node: Node, rows: int, tickets: int, partials: int) -> None:
    source = lower_gemm(node, rows, HOPPER)
    assert source is not None
    assert source.untuned is None
    assert dict(source.scratch) == {"gemm.partial": 4 * tickets * partials, "gemm.tickets": 4 * tickets}
    (launch,) = source.calls
    assert launch.kernel.function == "gemm_even"
    assert launch.grid[0] <= HOPPER.multiprocessors
    ptx = compile_one(launch.kernel, HOPPER).ptx
    weight = ptx.index("cp.async.bulk.tensor")
    assert weight < ptx.index("griddepcontrol.wait", weight), "the ring is filled before the wait"
    assert "atom.global.gpu.release.add" in ptx
    assert "ld.global.gpu.acquire" in ptx


def test_programs_that_wait_for_one_another_fit_the_gpu() -> None:
    with pytest.raises(
        CompileError, match=r"120 do not fit the 114 multiprocessors .* choose fewer in gemm_sm_90.json"
    ):
        lower_gemm(product(2560, 9728), 256, replace(HOPPER, multiprocessors=114))
