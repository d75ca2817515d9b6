"""The launches chosen for two models on the GPU at hand, against float32: the bundled one and the smallest Qwen3.

Few of them are in a tuning table: the others are defaults that nothing else runs.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from oi.codegen.cuda.kernels.gemm import Gemm  # noqa: E402
from oi.codegen.cuda.tuning.gemm_launch import Scratch, launch  # noqa: E402
from oi.codegen.cuda.tuning.gemm_table import MOST_F32_ROWS, choose_gemm  # noqa: E402
from tests.kernels.cuda.qwen3_products import products  # noqa: E402

pytestmark = pytest.mark.gpu

ROWS = [1, 5, 16, 33, 64, 128, 200, 256, 1000]
GEMMS = [*products("tiny"), *products("0.6B")]


@pytest.mark.parametrize("target", ["its own", "any"])
@pytest.mark.parametrize("gemm", GEMMS, ids=str)
def test_chosen_launches(gemm: Gemm, target: str) -> None:
    major, minor = torch.cuda.get_device_capability()
    name = f"sm_{major}{minor}" if target == "its own" else "any"
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    dtype, step = (torch.float32, 2.0**-16) if gemm.f32 else (torch.bfloat16, 2.0**-8)
    w = (torch.randn(gemm.weight_rows, gemm.k, device="cuda") * gemm.k**-0.5).bfloat16()
    scratch = Scratch()
    for rows in (r for r in ROWS if not gemm.f32 or r <= MOST_F32_ROWS):
        config = choose_gemm(gemm, rows, target=name, multiprocessors=multiprocessors).config
        x = torch.randn(rows, gemm.k, device="cuda").bfloat16()
        expected = x.float() @ w.float().T
        if gemm.swiglu:
            expected = torch.nn.functional.silu(expected[:, : gemm.n]) * expected[:, gemm.n :]
        y = torch.full((rows, gemm.n), torch.nan, dtype=dtype, device="cuda")
        scratch.partial.fill_(torch.nan)
        launch(gemm, config, x, w, y, scratch, pdl=major >= 9)
        assert not scratch.tickets.any()
        torch.testing.assert_close(y.float(), expected, rtol=step, atol=1e-4, msg=str(config))
        assert (y.float() - expected).norm() < step * expected.norm(), config
