"""Launch the sampling kernels from PyTorch, for tests and benches. Scratch and results are poisoned first."""

from __future__ import annotations

from typing import Any

import torch

from oi.codegen.cuda.kernels.greedy import greedy, greedy_chunks
from oi.codegen.cuda.kernels.log_probs import log_probs, log_probs_chunks
from oi.codegen.cuda.kernels.sample import sample, sample_chunks
from oi.codegen.cuda.kernels.sampling import Array, Greedy, LogProbs, Sample

__all__ = ["GreedyLaunch", "LogProbsLaunch", "SampleLaunch"]


def _poisoned(array: Array, device: torch.device) -> torch.Tensor:
    dtype, shape = array
    if dtype == "f32":
        return torch.full(shape, torch.nan, device=device)
    if dtype == "i64":
        return torch.full(shape, 2**62, dtype=torch.int64, device=device)
    return torch.full(shape, -1, dtype=torch.int32, device=device)


def _options(pdl: bool) -> dict[str, Any]:
    return {"PDL": pdl, **({"launch_pdl": True} if pdl else {})}


class GreedyLaunch:
    """logits f32 [R, V] → `token`."""

    def __init__(self, logits: torch.Tensor, config: Greedy, pdl: bool = False) -> None:
        self.logits, self.config, self.options = logits, config, _options(pdl)
        rows, vocabulary = logits.shape
        self.best = _poisoned(config.scratch(vocabulary, rows)["best"], logits.device)
        self.token = _poisoned(("i32", (rows,)), logits.device)

    def run(self) -> None:
        rows, vocabulary = self.logits.shape
        first, second = self.config.constants(vocabulary)
        greedy_chunks[(rows, self.best.shape[1])](self.logits, self.best, **first, **self.options)
        greedy[(rows,)](self.best, self.token, **second, num_warps=1, **self.options)


class LogProbsLaunch:
    """logits f32 [R, V], token i32 [R] → `chosen`, `top_tokens`, `top`."""

    def __init__(self, logits: torch.Tensor, token: torch.Tensor, config: LogProbs, pdl: bool = False) -> None:
        self.logits, self.token, self.config, self.options = logits, token, config, _options(pdl)
        rows, vocabulary = logits.shape
        self.scratch = {n: _poisoned(a, logits.device) for n, a in config.scratch(vocabulary, rows).items()}
        self.chosen = _poisoned(("f32", (rows,)), logits.device)
        self.top_tokens = _poisoned(("i32", (rows, config.top)), logits.device)
        self.top = _poisoned(("f32", (rows, config.top)), logits.device)

    def run(self) -> None:
        rows, vocabulary = self.logits.shape
        first, second = self.config.constants(vocabulary)
        best, sums, *others = self.scratch.values()
        grid = (rows, self.config.chunk_programs(vocabulary))
        log_probs_chunks[grid](self.logits, best, sums, **first, **self.options)
        log_probs[(rows,)](
            self.logits,
            self.token,
            best,
            sums,
            self.chosen,
            self.top_tokens,
            self.top,
            *others,
            **second,
            num_warps=self.config.num_warps,
            **self.options,
        )


class SampleLaunch:
    """Operands of `sample` in ir/ops/sampling.py, by its names → `token`. The logits are as before afterwards."""

    def __init__(self, operands: dict[str, torch.Tensor], config: Sample, pdl: bool = False) -> None:
        self.operands, self.config, self.options = operands, config, _options(pdl)
        logits = operands["logits"]
        rows, vocabulary = logits.shape
        sizes = config.scratch(vocabulary, rows, len(operands["edit_tokens"]))
        self.scratch = {n: _poisoned(a, logits.device) for n, a in sizes.items()}
        self.token = _poisoned(("i32", (rows,)), logits.device)

    def run(self) -> None:
        given = self.operands
        logits, *edits = (given[n] for n in ("logits", "edit_starts", "edit_lens", "edit_tokens"))
        values = (given["edit_scale"], given["edit_add"])
        cuts = (given[n] for n in ("temperature", "top_k", "top_p", "min_p", "uniform"))
        rows, vocabulary = logits.shape
        first, second = self.config.constants(vocabulary)
        best, sums, original, *others = self.scratch.values()
        sample_chunks[(rows, self.config.chunk_programs(vocabulary))](
            logits, *edits, *values, given["temperature"], best, sums, original, **first, **self.options
        )
        sample[(rows,)](
            logits,
            *edits,
            *cuts,
            self.token,
            best,
            sums,
            original,
            *others,
            **second,
            num_warps=self.config.num_warps,
            **self.options,
        )
