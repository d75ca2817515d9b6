"""add_rms_norm against the two ops one by one."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, ROUNDING, relative_error, torch

# isort: split

from oi.codegen.cuda.tuning.rows_launch import add_rms_norm
from tests.kernels.cuda.row_reference import rms_norm_reference

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("rows", "width"), [(1, 2560), (3, 1024), (7, 5120), (2, 96)])
def test_add_rms_norm(rows: int, width: int) -> None:
    x, residual = (torch.randn(rows, width, device=DEVICE, dtype=DTYPE) for _ in range(2))
    weight = torch.randn(width, device=DEVICE, dtype=DTYPE)
    z, y = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    add_rms_norm(x, residual, weight, z, y)
    assert torch.equal(z, x + residual)
    assert relative_error(y, rms_norm_reference(z, weight)) < ROUNDING
