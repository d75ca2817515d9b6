"""Launch the kernels that take a row, or a few tokens, a program from PyTorch, for tests and benches."""

from __future__ import annotations

import torch
import triton

from oi.codegen.cuda.kernels.add_rms_norm import add_rms_norm as add_rms_norm_kernel
from oi.codegen.cuda.kernels.embedding import embedding as embedding_kernel
from oi.codegen.cuda.kernels.qkv_norm_rope_write import qkv_norm_rope_write as qkv_norm_rope_write_kernel
from oi.codegen.cuda.kernels.rms_norm import rms_norm as rms_norm_kernel
from oi.codegen.cuda.kernels.rope_angles import rope_angles as rope_angles_kernel
from oi.codegen.cuda.kernels.select_rows import select_rows as select_rows_kernel
from oi.codegen.cuda.tuning.torch_launch import launch_options

__all__ = ["EPS", "add_rms_norm", "embedding", "qkv_norm_rope_write", "rms_norm", "rope_angles", "select_rows"]

EPS = 1e-6


def _width(x: torch.Tensor) -> dict[str, int]:
    return {"H": x.shape[1], "BLOCK": triton.next_power_of_2(x.shape[1])}


def rms_norm(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor, pdl: bool = False, warps: int = 8) -> None:
    rms_norm_kernel[(len(x),)](x, weight, y, **_width(x), EPS=EPS, num_warps=warps, **launch_options(pdl))


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    z: torch.Tensor,
    y: torch.Tensor,
    pdl: bool = False,
    warps: int = 8,
) -> None:
    add_rms_norm_kernel[(len(x),)](
        x, residual, weight, z, y, **_width(x), EPS=EPS, num_warps=warps, **launch_options(pdl)
    )


def embedding(
    tokens: torch.Tensor,
    table: torch.Tensor,
    y: torch.Tensor,
    sampled: torch.Tensor | None = None,
    pdl: bool = False,
    warps: int = 8,
) -> None:
    """`sampled` may be missing where no token is negative."""
    sampled = tokens if sampled is None else sampled
    embedding_kernel[(len(tokens),)](tokens, sampled, table, y, **_width(table), num_warps=warps, **launch_options(pdl))


def select_rows(x: torch.Tensor, rows: torch.Tensor, y: torch.Tensor, pdl: bool = False, warps: int = 8) -> None:
    select_rows_kernel[(len(rows),)](x, rows, y, **_width(x), num_warps=warps, **launch_options(pdl))


def rope_angles(
    positions: torch.Tensor, inv_freq: torch.Tensor, y: torch.Tensor, scale: float, pdl: bool = False
) -> None:
    rope_angles_kernel[(len(positions),)](
        positions, inv_freq, y, HALF=len(inv_freq), SCALE=scale, num_warps=2, **launch_options(pdl)
    )


def qkv_norm_rope_write(
    qkv: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    angles: torch.Tensor,
    slots: torch.Tensor,
    kv: torch.Tensor,
    q: torch.Tensor,
    layer: int,
    pdl: bool = False,
    tokens_per_program: int = 1,
    warps: int = 1,
) -> None:
    _, layers, _, kv_heads, page, dim = kv.shape
    q_heads = q.shape[1]
    qkv_norm_rope_write_kernel[(triton.cdiv(len(qkv), tokens_per_program), kv_heads)](
        qkv,
        q_weight,
        k_weight,
        angles,
        slots,
        kv,
        q,
        len(qkv),
        layer,
        L=layers,
        Q=q_heads,
        K=kv_heads,
        B=page,
        D=dim,
        TOKENS=tokens_per_program,
        HEADS=triton.next_power_of_2(q_heads // kv_heads + 2),
        EPS=EPS,
        num_warps=warps,
        **launch_options(pdl),
    )
