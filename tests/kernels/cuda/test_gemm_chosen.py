"""The launches chosen for two models on the GPU at hand, against float64: the bundled one and the smallest Qwen3.

Few of them are in a tuning table: the others are defaults that nothing else runs.
"""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import INTERPRETED, torch

if INTERPRETED:
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from oi.codegen.cuda.kernels.gemm import Gemm
from oi.codegen.cuda.tuning.gemm_launch import Scratch, launch
from oi.codegen.cuda.tuning.gemm_table import MOST_F32_ROWS, choose_gemm
from tests.kernels.cuda.gemm_cases import assert_close, random_case
from tests.kernels.cuda.qwen3_products import products

pytestmark = pytest.mark.gpu

ROWS = [1, 5, 16, 33, 64, 128, 200, 256, 1000]
GEMMS = [*products("tiny"), *products("0.6B")]


@pytest.mark.parametrize("target", ["its own", "any"])
@pytest.mark.parametrize("gemm", GEMMS, ids=str)
def test_chosen_launches(gemm: Gemm, target: str) -> None:
    major, minor = torch.cuda.get_device_capability()
    name = f"sm_{major}{minor}" if target == "its own" else "any"
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    dtype = torch.float32 if gemm.f32 else torch.bfloat16
    scratch = Scratch()
    for rows in (r for r in ROWS if not gemm.f32 or r <= MOST_F32_ROWS):
        config = choose_gemm(gemm, rows, target=name, multiprocessors=multiprocessors).config
        x, w, expected = random_case(gemm, rows)
        y = torch.full((rows, gemm.n), torch.nan, dtype=dtype, device="cuda")
        scratch.partial.fill_(torch.nan)
        launch(gemm, config, x, w, y, scratch, pdl=major >= 9)
        assert not scratch.tickets.any()
        print(config)
        assert_close(y, expected, f32_step=2.0**-16)
