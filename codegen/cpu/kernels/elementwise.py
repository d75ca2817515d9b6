"""result = function(operands…), element by element: what add, mul and silu share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oi.codegen.cpu.simd import Expr, Kernel, Simd, declare, dim, for_columns, load, nest, parallel_rows, store
from oi.ir.types import DType

__all__ = ["elementwise"]


def elementwise(
    name: str, simd: Simd, trailing: Sequence[int], operands: Sequence[str], function: Callable[..., Expr]
) -> Kernel:
    """All tensors are f32 [T, *trailing]."""
    *middle, columns = trailing

    def body() -> None:
        rows = dim()
        *inputs, result = declare(**dict.fromkeys((*operands, "result"), (DType.F32, rows, *trailing)))

        def line(*outer: Expr) -> None:
            def step(i: Expr, n: int) -> None:
                store(result, function(*(load(x, *outer, i, lanes=n) for x in inputs)), *outer, i)

            for_columns(columns, simd.lanes, step)

        parallel_rows(rows, lambda t: nest(middle, lambda *inner: line(t, *inner)))

    return Kernel(f"{name}_{'x'.join(map(str, trailing))}", body)
