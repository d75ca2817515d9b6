"""rms_norm against float64."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, DTYPE, ROUNDING, relative_error, torch

# isort: split

from oi.codegen.cuda.tuning.rows_launch import rms_norm
from tests.kernels.cuda.row_reference import rms_norm_reference

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("rows", "width"), [(1, 2560), (3, 1024), (7, 5120), (2, 96)])
def test_rms_norm(rows: int, width: int) -> None:
    x, weight = (torch.randn(*s, device=DEVICE, dtype=DTYPE) for s in ((rows, width), (width,)))
    y = torch.full_like(x, torch.nan)
    rms_norm(x, weight, y)
    assert relative_error(y, rms_norm_reference(x, weight)) < ROUNDING
