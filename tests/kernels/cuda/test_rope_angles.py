"""rope_angles against float64 of the same float32 angles."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, torch

# isort: split

from oi.codegen.cuda.tuning.rows_launch import rope_angles

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("scale", [1.0, 1.25])
@pytest.mark.parametrize("tokens", [1, 33])
def test_rope_angles(tokens: int, scale: float) -> None:
    positions = torch.randint(0, 131072, (tokens,), dtype=torch.int32, device=DEVICE)
    inv_freq = 1e6 ** -(torch.arange(0, 128, 2, device=DEVICE) / 128)
    y = torch.full((tokens, 128), torch.nan, device=DEVICE)
    rope_angles(positions, inv_freq, y, scale)
    angle = (positions.float()[:, None] * inv_freq).double()
    assert (y.double() - scale * torch.cat((angle.cos(), angle.sin()), 1)).abs().max() < 1e-6
