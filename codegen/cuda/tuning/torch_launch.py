"""What launching any kernel from PyTorch takes: options, tensor descriptors, poisoned scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from oi.codegen.cuda.scratch import Array

__all__ = ["descriptor", "launch_options", "poisoned", "poisoned_scratch"]


def launch_options(pdl: bool) -> dict[str, Any]:
    """For a kernel that may be a dependent launch. (Triton's interpreter knows no `launch_pdl`.)"""
    return {"PDL": pdl, **({"launch_pdl": True} if pdl else {})}


def descriptor(array: torch.Tensor, box: Sequence[int]) -> TensorDescriptor:
    """Swizzled as the compiler has it (codegen/cuda/aot.py)."""
    return TensorDescriptor.from_tensor(array, list(box), gl.NVMMASharedLayout.get_default_for(list(box), gl.bfloat16))


def poisoned(array: Array, device: torch.device) -> torch.Tensor:
    """NaN, or integers that are nowhere near a place in an array."""
    dtype, shape = array
    if dtype == "f32":
        return torch.full(shape, torch.nan, device=device)
    if dtype == "i64":
        return torch.full(shape, 2**62, dtype=torch.int64, device=device)
    return torch.full(shape, -(10**9), dtype=torch.int32, device=device)


def poisoned_scratch(arrays: Mapping[str, Array], device: torch.device) -> dict[str, torch.Tensor]:
    """But for `arrivals`, which kernels want zero before their first launch."""
    scratch = {name: poisoned(array, device) for name, array in arrays.items()}
    if "arrivals" in scratch:
        scratch["arrivals"].zero_()
    return scratch
