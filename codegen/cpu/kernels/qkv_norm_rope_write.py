"""q = rope(rms_norm(qkv[:, :Q·D], q_weight));  k = rope(rms_norm(qkv[:, Q·D:(Q+K)·D], k_weight));
v = qkv[:, (Q+K)·D:];  kv' = kv_write(k, v)

qkv f32 [T, (Q+2K)·D], q_weight and k_weight [D] float32 or bfloat16, angles f32 [T, D], slots i32 [T],
kv f32 [N, L, 2, K, B, D] written in place, q f32 [T, Q, D]. Floor: 8·T·(Q+2K)·D bytes.
"""

from __future__ import annotations

from oi.codegen.cpu.kernels.kv_write import slot_of
from oi.codegen.cpu.kernels.rms_norm import eps_name, inverse_rms
from oi.codegen.cpu.kernels.rope import rotate
from oi.codegen.cpu.simd import (
    Expr,
    Kernel,
    Simd,
    T,
    declare,
    dim,
    for_columns,
    integer,
    load,
    parallel_rows,
    splat,
    store,
    when,
)
from oi.ir.types import DType

__all__ = ["qkv_norm_rope_write"]


def qkv_norm_rope_write(
    simd: Simd, q_heads: int, layers: int, heads: int, page: int, size: int, dtype: DType, eps: float
) -> Kernel:
    def body() -> None:
        rows, pages = dim(), dim()
        qkv, q_weight, k_weight, angles, slots, kv, q = declare(
            qkv=(DType.F32, rows, (q_heads + 2 * heads) * size),
            q_weight=(dtype, size),
            k_weight=(dtype, size),
            angles=(DType.F32, rows, size),
            slots=(DType.I32, rows),
            kv=(DType.F32, pages, layers, 2, heads, page, size),
            q=(DType.F32, rows, q_heads, size),
        )
        layer = integer("layer")

        def head(t: Expr, column: Expr, weight: Expr, write: Expr) -> None:
            scale = inverse_rms(simd, size, eps, lambda i, n: load(qkv, t, column + i, lanes=n))

            def normed(i: Expr, n: int) -> Expr:
                return load(qkv, t, column + i, lanes=n) * splat(scale, n) * load(weight, i, lanes=n)

            rotate(simd, size, normed, angles, t, write)

        def row(t: Expr) -> None:
            with T.serial(q_heads) as h:
                head(t, h * size, q_weight, lambda value, i: store(q, value, t, h, i))
            slot = load(slots, t)
            with when(slot >= 0):
                number, offset = slot_of(slot, page)
                with T.serial(heads) as h:
                    head(
                        t,
                        (q_heads + h) * size,
                        k_weight,
                        lambda value, i: store(kv, value, number, layer, 0, h, offset, i),
                    )
                    column = (q_heads + heads + h) * size

                    def copy(i: Expr, n: int) -> None:
                        store(kv, load(qkv, t, column + i, lanes=n), number, layer, 1, h, offset, i)

                    for_columns(size, simd.lanes, copy)

        parallel_rows(rows, row)

    shape = f"{q_heads}x{layers}x{heads}x{page}x{size}"
    return Kernel(f"qkv_norm_rope_write_{shape}_{dtype.value}_{eps_name(eps)}", body)
