"""Launch the attention kernels from PyTorch, for tests and benches. Compiles at the first call of a config."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from oi.codegen.cuda.kernels.attention import AttentionShape, Decode, Prefill
from oi.codegen.cuda.kernels.attention_decode import attention_decode
from oi.codegen.cuda.kernels.attention_decode_plan import attention_decode_plan
from oi.codegen.cuda.kernels.attention_prefill import attention_prefill
from oi.codegen.cuda.kernels.attention_prefill_add import attention_prefill_add
from oi.codegen.cuda.kernels.attention_prefill_plan import attention_prefill_plan
from oi.codegen.cuda.tuning.torch_launch import descriptor, launch_options, poisoned, poisoned_scratch

__all__ = ["AttentionCall", "DecodeLaunch", "PrefillLaunch", "Qkv"]


@dataclass
class AttentionCall:
    """Operands of ir/ops/attention.py; `layer` picks one of kv's."""

    q: torch.Tensor
    kv: torch.Tensor
    query_starts: torch.Tensor
    query_lens: torch.Tensor
    context_lens: torch.Tensor
    page_table: torch.Tensor
    table_width: torch.Tensor
    layer: int

    @property
    def shape(self) -> AttentionShape:
        _, layers, _, kv_heads, page, dim = self.kv.shape
        return AttentionShape(self.q.shape[1], kv_heads, dim, layers, dim**-0.5, page)

    @property
    def sequences(self) -> int:
        return len(self.query_lens)


@dataclass
class Qkv:
    """What attention reads in place of q where qkv_norm_rope_write is part of it."""

    qkv: torch.Tensor
    q_weight: torch.Tensor
    k_weight: torch.Tensor
    angles: torch.Tensor
    eps: float


class DecodeLaunch:
    """Buffers for a call; `plan` once its lengths are set, then `run`, which fills `y`."""

    def __init__(self, call: AttentionCall, config: Decode, pdl: bool = False, qkv: Qkv | None = None) -> None:
        self.call, self.config, self.pdl, self.qkv = call, config, pdl, qkv
        device = call.q.device
        self.y = torch.full_like(call.q, torch.nan)
        self.plan_buffer = poisoned(("i32", (config.plan_size(call.sequences),)), device)
        self.scratch = poisoned_scratch(config.scratch(call.shape, call.sequences), device)

    def plan(self) -> None:
        call, config = self.call, self.config
        attention_decode_plan[(1,)](
            call.query_lens,
            call.context_lens,
            self.plan_buffer,
            call.sequences,
            config.programs,
            **config.plan_constants(call.shape),
            num_warps=8,
        )

    def run(self) -> None:
        call, config = self.call, self.config
        kernel, inputs, constants, options = attention_decode, [call.q], config.constants(call.shape), {}
        if config.hopper:
            from oi.codegen.cuda.kernels import attention_decode_hopper as hopper

            kernel, options = hopper.attention_decode_hopper, {"maxnreg": config.max_registers}
            if self.qkv:
                kernel, constants["EPS"] = hopper.qkv_attention_decode_hopper, self.qkv.eps
                inputs = [self.qkv.qkv, self.qkv.q_weight, self.qkv.k_weight, self.qkv.angles]
            inputs.insert(0, descriptor(call.kv.view(-1, call.kv.shape[-1]), config.boxes(call.shape)["kv_desc"]))
        kernel[(config.programs,)](
            *inputs,
            call.kv,
            call.query_starts,
            call.context_lens,
            call.page_table,
            self.plan_buffer,
            self.y,
            *self.scratch.values(),
            call.layer,
            call.sequences,
            call.table_width,
            **constants,
            num_warps=config.num_warps,
            **options,
            **launch_options(self.pdl),
        )


class PrefillLaunch:
    """As DecodeLaunch."""

    def __init__(self, call: AttentionCall, config: Prefill, pdl: bool = False) -> None:
        self.call, self.config, self.pdl = call, config, pdl
        device, tokens = call.q.device, call.q.shape[0]
        self.y = torch.full_like(call.q, torch.nan)
        size = config.plan_size(call.shape, tokens, call.sequences)
        self.plan_buffer = poisoned(("i32", (size,)), device)
        self.scratch = poisoned_scratch(config.scratch(call.shape), device)

    def plan(self) -> None:
        call, config = self.call, self.config
        attention_prefill_plan[(1,)](
            call.query_lens,
            call.context_lens,
            self.plan_buffer,
            call.sequences,
            config.programs,
            config.tiles(call.shape, call.q.shape[0], call.sequences),
            **config.plan_constants(call.shape),
            num_warps=8,
        )

    def run(self) -> None:
        call, config = self.call, self.config
        kernel, options = attention_prefill, {}
        q, kv = call.q, call.kv
        if config.hopper:
            from oi.codegen.cuda.kernels.attention_prefill_few_hopper import attention_prefill_few_hopper
            from oi.codegen.cuda.kernels.attention_prefill_hopper import attention_prefill_hopper

            kernel = attention_prefill_hopper
            if config.few:
                kernel, options = attention_prefill_few_hopper, {"maxnreg": config.max_registers}
            boxes = config.boxes(call.shape)
            q = descriptor(call.q, boxes["q_desc"])
            kv = descriptor(call.kv.view(-1, call.kv.shape[-1]), boxes["kv_desc"])
        kernel[(config.programs,)](
            q,
            kv,
            call.query_starts,
            call.query_lens,
            call.context_lens,
            call.page_table,
            self.plan_buffer,
            self.y,
            *self.scratch.values(),
            call.layer,
            call.table_width,
            **config.constants(call.shape),
            num_warps=config.num_warps,
            **options,
            **launch_options(self.pdl),
        )
        if config.few:
            self._add()

    def _add(self) -> None:
        call, config = self.call, self.config
        attention_prefill_add[(config.programs,)](
            call.query_starts,
            call.query_lens,
            call.context_lens,
            self.plan_buffer,
            *self.scratch.values(),
            self.y,
            **config.add_constants(call.shape),
            num_warps=config.num_warps,
            **launch_options(self.pdl),
        )
