"""Launch the sampling kernels from PyTorch, for tests and benches. Scratch and results are poisoned first."""

from __future__ import annotations

import torch

from oi.codegen.cuda.kernels.greedy import greedy, greedy_chunks
from oi.codegen.cuda.kernels.log_probs import log_probs, log_probs_chunks
from oi.codegen.cuda.kernels.sample import sample, sample_chunks
from oi.codegen.cuda.kernels.sampling import Greedy, LogProbs, Sample
from oi.codegen.cuda.tuning.torch_launch import launch_options, poisoned, poisoned_scratch

__all__ = ["GreedyLaunch", "LogProbsLaunch", "SampleLaunch"]


class GreedyLaunch:
    """logits f32 [R, V] → `token`."""

    def __init__(self, logits: torch.Tensor, config: Greedy, pdl: bool = False) -> None:
        self.logits, self.config, self.options = logits, config, launch_options(pdl)
        rows, vocabulary = logits.shape
        self.best = poisoned(config.scratch(vocabulary, rows)["best"], logits.device)
        self.token = poisoned(("i32", (rows,)), logits.device)

    def run(self) -> None:
        rows, vocabulary = self.logits.shape
        first, second = self.config.constants(vocabulary)
        greedy_chunks[(rows, self.best.shape[1])](self.logits, self.best, **first, **self.options)
        greedy[(rows,)](self.best, self.token, **second, num_warps=1, **self.options)


class LogProbsLaunch:
    """logits f32 [R, V], token i32 [R] → `chosen`, `top_tokens`, `top`."""

    def __init__(self, logits: torch.Tensor, token: torch.Tensor, config: LogProbs, pdl: bool = False) -> None:
        self.logits, self.token, self.config, self.options = logits, token, config, launch_options(pdl)
        rows, vocabulary = logits.shape
        self.scratch = poisoned_scratch(config.scratch(vocabulary, rows), logits.device)
        self.chosen = poisoned(("f32", (rows,)), logits.device)
        self.top_tokens = poisoned(("i32", (rows, config.top)), logits.device)
        self.top = poisoned(("f32", (rows, config.top)), logits.device)

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
        self.operands, self.config, self.options = operands, config, launch_options(pdl)
        logits = operands["logits"]
        rows, vocabulary = logits.shape
        sizes = config.scratch(vocabulary, rows, len(operands["edit_tokens"]))
        self.scratch = poisoned_scratch(sizes, logits.device)
        self.token = poisoned(("i32", (rows,)), logits.device)

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
