"""Launch the GEMM kernels from PyTorch, for the tuner, tests and benches. Compiles at the first call of a config."""

from __future__ import annotations

import torch

from oi.codegen.cuda.kernels.gemm import Even, Gemm, Gemv, Portable, Prefill, Skinny
from oi.codegen.cuda.kernels.gemm_even import gemm_even
from oi.codegen.cuda.kernels.gemm_portable import gemm_portable
from oi.codegen.cuda.kernels.gemm_prefill import gemm_prefill
from oi.codegen.cuda.kernels.gemm_skinny import gemm_skinny
from oi.codegen.cuda.kernels.gemv import gemv
from oi.codegen.cuda.tuning.torch_launch import descriptor, launch_options

__all__ = ["Config", "Scratch", "launch"]

Config = Gemv | Skinny | Even | Prefill | Portable


class Scratch:
    """Partial sums and tickets; one serves all launches of a stream."""

    def __init__(self, partial_bytes: int = 64 << 20, tickets: int = 4096, device: str = "cuda") -> None:
        self.partial = torch.empty(partial_bytes // 4, dtype=torch.float32, device=device)
        self.tickets = torch.zeros(tickets, dtype=torch.int32, device=device)


def launch(
    gemm: Gemm,
    config: Config,
    x: torch.Tensor,
    w: torch.Tensor,
    y: torch.Tensor,
    scratch: Scratch,
    pdl: bool = True,
) -> None:
    """x bf16[M, k], w bf16[weight_rows, k] → y[M, n]. The Hopper kernels are always dependent launches."""
    rows = x.shape[0]
    if isinstance(config, Gemv):
        gemv[(config.grid(gemm),)](
            x,
            w,
            y,
            **config.constants(gemm, rows),
            num_warps=config.num_warps,
            **launch_options(pdl),
        )
        return
    if isinstance(config, Portable):
        gemm_portable[(config.grid(gemm, rows),)](
            x,
            w,
            y,
            scratch.partial,
            scratch.tickets,
            rows,
            **config.constants(gemm),
            num_warps=config.num_warps,
            **launch_options(pdl),
        )
        return
    multiprocessors = torch.cuda.get_device_properties(x.device).multi_processor_count
    if isinstance(config, (Skinny, Even)):
        kernel = gemm_skinny if isinstance(config, Skinny) else gemm_even
        assert kernel is not gemm_even or config.grid(gemm) <= multiprocessors, "its programs wait for one another"
        boxes = config.boxes(rows)
        kernel[(config.grid(gemm),)](
            descriptor(w, boxes["w_desc"]),
            descriptor(x, boxes["x_desc"]),
            y,
            scratch.partial,
            scratch.tickets,
            rows,
            **config.constants(gemm, rows),
            num_warps=config.num_warps,
            maxnreg=config.max_registers(gemm, rows),
            launch_pdl=True,
        )
        return
    arrays = {"x_desc": x, "w0_desc": w, "w1_desc": w, "y0_desc": y, "y1_desc": y}
    gemm_prefill[(config.grid(gemm, rows, multiprocessors),)](
        *(descriptor(arrays[name], box) for name, box in config.boxes().items()),
        rows,
        **config.constants(gemm),
        num_warps=config.num_warps,
        launch_pdl=True,
    )
