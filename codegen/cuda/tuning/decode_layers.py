"""A decode step's layers as a step launches them, to time products among their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from oi.codegen.cuda.kernels.gemm import Gemm
from oi.codegen.cuda.tuning.attention_launch import AttentionCall, DecodeLaunch, Qkv
from oi.codegen.cuda.tuning.attention_table import choose_decode
from oi.codegen.cuda.tuning.gemm_launch import Config, Scratch, launch
from oi.codegen.cuda.tuning.rows_launch import EPS, add_rms_norm

__all__ = ["DecodeLayers"]

PAGE, HEAD_DIM = 16, 128


def _random(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_()


class DecodeLayers:
    """Norm, q/k/v, attention over `context` tokens with all that it fuses, o, norm, gate and up, down: for each layer.

    gemms and weights: by the names qkv, o, swiglu and down; `weights` has one array a layer.
    """

    def __init__(
        self,
        gemms: Mapping[str, Gemm],
        weights: Mapping[str, Sequence[torch.Tensor]],
        rows: int,
        kv_heads: int,
        context: int,
        scratch: Scratch,
    ) -> None:
        self.gemms, self.weights, self.scratch = gemms, weights, scratch
        hidden, heads = gemms["qkv"].k, gemms["o"].k // HEAD_DIM
        self.layers, pages = len(weights["qkv"]), -(-context // PAGE)
        self.x, self.residual, self.residual2, self.normed = (_random(rows, hidden) for _ in range(4))
        self.qkv, self.activated = _random(rows, gemms["qkv"].n), _random(rows, gemms["swiglu"].n)
        self.one = torch.ones_like(self.normed[0])
        tokens = torch.arange(rows + 1, dtype=torch.int32, device="cuda")
        self.call = AttentionCall(
            _random(rows, heads, HEAD_DIM),
            _random(rows * pages, self.layers, 2, kv_heads, PAGE, HEAD_DIM),
            tokens[:rows],
            torch.ones_like(tokens[:rows]),
            torch.full_like(tokens[:rows], context),
            torch.arange(rows * pages, dtype=torch.int32, device="cuda").view(rows, pages),
            torch.tensor([pages], dtype=torch.int32, device="cuda"),
            0,
        )
        ones = torch.ones(HEAD_DIM, dtype=torch.bfloat16, device="cuda")
        angles = torch.cat((torch.ones(rows, HEAD_DIM // 2), torch.zeros(rows, HEAD_DIM // 2)), 1).cuda()
        fused = Qkv(self.qkv, ones, ones, angles, EPS)
        self.attention = DecodeLaunch(self.call, choose_decode(rows), pdl=True, qkv=fused)
        self.attention.plan()

    def run(self, configs: Mapping[str, Config]) -> None:
        attended = self.attention.y.view(len(self.x), -1)
        for layer in range(self.layers):
            self.call.layer = layer
            add_rms_norm(self.x, self.residual, self.one, self.residual2, self.normed, pdl=True)
            self._product("qkv", configs, layer, self.normed, self.qkv)
            self.attention.run()
            self._product("o", configs, layer, attended, self.x)
            add_rms_norm(self.x, self.residual2, self.one, self.residual, self.normed, pdl=True)
            self._product("swiglu", configs, layer, self.normed, self.activated)
            self._product("down", configs, layer, self.activated, self.x)

    def _product(self, name: str, configs: Mapping[str, Config], layer: int, x: torch.Tensor, y: torch.Tensor) -> None:
        launch(self.gemms[name], configs[name], x, self.weights[name][layer], y, self.scratch)
