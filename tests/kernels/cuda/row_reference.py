"""Norm and rotation in float64."""

from __future__ import annotations

import torch

from oi.codegen.cuda.tuning.rows_launch import EPS


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Over the last dimension."""
    x = x.double()
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * weight.double()


def rope_reference(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """x [T, heads, D], angles [T, D]."""
    cos, sin = angles.double()[:, None].chunk(2, -1)
    low, high = x.double().chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)
