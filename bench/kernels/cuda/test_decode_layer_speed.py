"""What attention adds to a Qwen3-4B layer at decode: a layer as a step launches it, with attention and without."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
    pytest.skip("needs an sm_90 GPU", allow_module_level=True)

from bench.kernels.cuda.graph_timing import bench_launches, read_bandwidth  # noqa: E402
from oi.codegen.cuda.kernels.attention import Decode  # noqa: E402
from oi.codegen.cuda.kernels.gemm import Gemm  # noqa: E402
from oi.codegen.cuda.tuning import gemm_launch  # noqa: E402
from oi.codegen.cuda.tuning.attention_launch import DecodeLaunch, Qkv  # noqa: E402
from oi.codegen.cuda.tuning.attention_table import choose_decode  # noqa: E402
from oi.codegen.cuda.tuning.gemm_table import choose_gemm  # noqa: E402
from oi.codegen.cuda.tuning.rows_launch import EPS, add_rms_norm, qkv_norm_rope_write  # noqa: E402
from tests.kernels.cuda.paged import make_call  # noqa: E402

pytestmark = pytest.mark.gpu

LAYERS = 36
GEMMS = {
    "qkv": Gemm(6144, 2560),
    "o": Gemm(2560, 4096),
    "gate_up": Gemm(9728, 2560, swiglu=True),
    "down": Gemm(2560, 9728),
}


def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda") * scale


@pytest.fixture(scope="module")
def weights() -> dict[str, list[torch.Tensor]]:
    return {name: [random(g.weight_rows, g.k, scale=0.02) for _ in range(LAYERS)] for name, g in GEMMS.items()}


def portable(batch: int) -> Decode:
    return Decode(False, 32, 4, 4, 132 if batch <= 4 else 396) if batch <= 128 else Decode(False, 64, 3, 4, 396)


@pytest.mark.parametrize("attention", ["none", "portable", "hopper", "hopper with qkv_norm_rope_write"])
@pytest.mark.parametrize(("batch", "context"), [(1, 1024), (1, 4096), (8, 400), (64, 400), (256, 1100)])
def test_layer(
    benchmark: Any, weights: dict[str, list[torch.Tensor]], batch: int, context: int, attention: str
) -> None:
    call = make_call([1] * batch, [context] * batch, layers=LAYERS, poison=False)
    hidden, residual, residual2, normed, out = (random(batch, 2560) for _ in range(5))
    qkv, activated = random(batch, 6144), random(batch, 9728)
    one, head_one = torch.ones_like(normed[0]), torch.ones_like(call.q[0, 0])
    angles = torch.cat((torch.ones(batch, 64), torch.zeros(batch, 64)), 1).cuda()
    slots = (call.page_table[:, (context - 1) // 16] * 16 + (context - 1) % 16).to(torch.int32)
    scratch = gemm_launch.Scratch()
    launch = None
    if attention != "none":
        fused = Qkv(qkv, head_one, head_one, angles, EPS) if attention.endswith("write") else None
        config = portable(batch) if attention == "portable" else choose_decode(batch)
        launch = DecodeLaunch(call, config, pdl=True, qkv=fused)
        launch.plan()
    attended = (launch.y if launch else call.q).view(batch, -1)

    def product(name: str, layer: int, x: torch.Tensor, y: torch.Tensor) -> None:
        gemm_launch.launch(GEMMS[name], choose_gemm(GEMMS[name], batch).config, x, weights[name][layer], y, scratch)

    def run(layer: int) -> None:
        add_rms_norm(out, residual, one, residual2, normed, pdl=True)
        product("qkv", layer, normed, qkv)
        if launch:
            call.layer = layer
            if not launch.qkv:
                qkv_norm_rope_write(qkv, head_one, head_one, angles, slots, call.kv, call.q, layer, pdl=True)
            launch.run()
        product("o", layer, attended, hidden)
        add_rms_norm(hidden, residual2, one, residual, normed, pdl=True)
        product("gate_up", layer, normed, activated)
        product("down", layer, activated, out)

    us = bench_launches(benchmark, run, LAYERS)
    read = sum(2 * g.weight_rows * g.k for g in GEMMS.values()) + (4096 * batch * context if launch else 0)
    benchmark.extra_info["of_floor"] = read / read_bandwidth() / us * 1e6
