"""Launches of the kernels that take a row (or a token) a program."""

from __future__ import annotations

from typing import Any

import torch
import triton

from oi.codegen.cuda.kernels import (
    add_rms_norm as add_rms_norm_file,
)
from oi.codegen.cuda.kernels import (
    embedding as embedding_file,
)
from oi.codegen.cuda.kernels import (
    qkv_norm_rope_write as qkv_file,
)
from oi.codegen.cuda.kernels import (
    rms_norm as rms_norm_file,
)
from oi.codegen.cuda.kernels import (
    rope_angles as rope_angles_file,
)
from oi.codegen.cuda.kernels import (
    select_rows as select_rows_file,
)

EPS = 1e-6


def _options(pdl: bool, warps: int) -> dict[str, Any]:
    return {"PDL": pdl, "num_warps": warps, **({"launch_pdl": True} if pdl else {})}


def _width(x: torch.Tensor) -> dict[str, int]:
    return {"H": x.shape[1], "BLOCK": triton.next_power_of_2(x.shape[1])}


def rms_norm(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor, pdl: bool = False, warps: int = 4) -> None:
    rms_norm_file.rms_norm[(len(x),)](x, weight, y, **_width(x), EPS=EPS, **_options(pdl, warps))


def add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    z: torch.Tensor,
    y: torch.Tensor,
    pdl: bool = False,
    warps: int = 4,
) -> None:
    add_rms_norm_file.add_rms_norm[(len(x),)](x, residual, weight, z, y, **_width(x), EPS=EPS, **_options(pdl, warps))


def embedding(tokens: torch.Tensor, table: torch.Tensor, y: torch.Tensor, pdl: bool = False, warps: int = 4) -> None:
    embedding_file.embedding[(len(tokens),)](tokens, table, y, **_width(table), **_options(pdl, warps))


def select_rows(x: torch.Tensor, rows: torch.Tensor, y: torch.Tensor, pdl: bool = False, warps: int = 4) -> None:
    select_rows_file.select_rows[(len(rows),)](x, rows, y, **_width(x), **_options(pdl, warps))


def rope_angles(
    positions: torch.Tensor, inv_freq: torch.Tensor, y: torch.Tensor, scale: float, pdl: bool = False
) -> None:
    rope_angles_file.rope_angles[(len(positions),)](
        positions, inv_freq, y, HALF=len(inv_freq), SCALE=scale, **_options(pdl, 2)
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
    qkv_file.qkv_norm_rope_write[(triton.cdiv(len(qkv), tokens_per_program), kv_heads)](
        qkv, q_weight, k_weight, angles, slots, kv, q, len(qkv), layer,
        L=layers, Q=q_heads, K=kv_heads, B=page, D=dim, TOKENS=tokens_per_program,
        HEADS=triton.next_power_of_2(q_heads // kv_heads + 2), EPS=EPS, **_options(pdl, warps),
    )  # fmt: skip


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Over the last dimension, in float64."""
    x = x.double()
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * weight.double()


def rope_reference(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """x [T, heads, D], angles [T, D], in float64."""
    cos, sin = angles.double()[:, None].chunk(2, -1)
    low, high = x.double().chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)
