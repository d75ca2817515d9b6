"""Launches of the sampling kernels, and their semantics in numpy float64 (ir/ops/sampling.py, step by step)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton

from oi.codegen.cuda.kernels.greedy import greedy, greedy_chunks
from oi.codegen.cuda.kernels.log_probs import log_probs, log_probs_chunks
from oi.codegen.cuda.kernels.sample import sample, sample_chunks

pow2 = triton.next_power_of_2


def launch_greedy(logits: torch.Tensor, chunk: int = 4096, pdl: bool = False) -> torch.Tensor:
    rows, vocabulary = logits.shape
    chunks = -(-vocabulary // chunk)
    best = torch.full((rows, chunks), 2**62, dtype=torch.int64, device=logits.device)
    token = torch.full((rows,), -1, dtype=torch.int32, device=logits.device)
    options = {"launch_pdl": True} if pdl else {}
    greedy_chunks[(rows, chunks)](logits, best, V=vocabulary, CHUNK=chunk, PDL=pdl, **options)
    greedy[(rows,)](best, token, C=chunks, C_BLOCK=pow2(chunks), PDL=pdl, num_warps=1, **options)
    return token


def launch_log_probs(
    logits: torch.Tensor, token: torch.Tensor, top: int = 20, chunk: int = 4096, pdl: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, vocabulary = logits.shape
    chunks = -(-vocabulary // chunk)
    device = logits.device
    sums = torch.full((rows, chunks, 2), float("nan"), device=device)
    best = torch.full((rows, chunks, top), 2**62, dtype=torch.int64, device=device)
    chosen = torch.full((rows,), float("nan"), device=device)
    top_tokens = torch.full((rows, top), -1, dtype=torch.int32, device=device)
    top_values = torch.full((rows, top), float("nan"), device=device)
    options = {"launch_pdl": True} if pdl else {}
    log_probs_chunks[(rows, chunks)](logits, sums, best, V=vocabulary, CHUNK=chunk, TOP=top, PDL=pdl, **options)
    log_probs[(rows,)](
        logits, token, sums, best, chosen, top_tokens, top_values,
        V=vocabulary, C=chunks, C_BLOCK=pow2(chunks), TOP=top, BEST_BLOCK=pow2(chunks * top), PDL=pdl, **options,
    )  # fmt: skip
    return chosen, top_tokens, top_values


@dataclass
class Settings:
    """Per row; edits are (token, scale, add)."""

    temperature: list[float]
    top_k: list[int]
    top_p: list[float]
    min_p: list[float]
    uniform: list[float]
    edits: list[list[tuple[int, float, float]]]


class Sampler:
    """Both launches of sample, with their inputs and scratch on the device."""

    def __init__(
        self, logits: torch.Tensor, settings: Settings, candidates: int = 8192, block: int = 8192, chunk: int = 4096, warps: int = 16
    ) -> None:
        device, (rows, vocabulary) = logits.device, logits.shape
        self.logits, self.block, self.chunk, self.warps = logits, block, chunk, warps

        def floats(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        def ints(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int32, device=device)

        flat = [e for row in settings.edits for e in row] or [(0, 1.0, 0.0)]
        lens = [len(row) for row in settings.edits]
        self.edits = (
            ints([sum(lens[:r]) for r in range(rows)]),
            ints(lens),
            ints([e[0] for e in flat]),
            floats([e[1] for e in flat]),
            floats([e[2] for e in flat]),
        )
        self.temperature = floats(settings.temperature)
        self.cuts = (ints(settings.top_k), floats(settings.top_p), floats(settings.min_p), floats(settings.uniform))
        self.chunks = -(-vocabulary // chunk)
        self.best = torch.full((rows, self.chunks), 2**62, dtype=torch.int64, device=device)
        self.sums = torch.full((rows, self.chunks), float("nan"), device=device)
        self.original = torch.full((len(flat),), float("nan"), device=device)
        self.candidates = torch.full((rows, candidates), float("nan"), device=device)
        self.candidate_tokens = torch.full((rows, candidates), -1, dtype=torch.int32, device=device)
        self.token = torch.full((rows,), -1, dtype=torch.int32, device=device)

    def run(self, pdl: bool = False) -> torch.Tensor:
        rows, vocabulary = self.logits.shape
        options = {"launch_pdl": True} if pdl else {}
        sample_chunks[(rows, self.chunks)](
            self.logits, *self.edits, self.temperature, self.best, self.sums, self.original,
            V=vocabulary, CHUNK=self.chunk, PDL=pdl, **options,
        )  # fmt: skip
        sample[(rows,)](
            self.logits, *self.edits[:3], self.temperature, *self.cuts, self.token, self.best, self.sums, self.original,
            self.candidates, self.candidate_tokens,
            V=vocabulary, C=self.chunks, C_BLOCK=pow2(self.chunks), CANDIDATES=self.candidates.shape[1],
            BLOCK=self.block, PDL=pdl, num_warps=self.warps, **options,
        )  # fmt: skip
        return self.token


def check_sample(logits: np.ndarray, settings: Settings, tokens: np.ndarray, slack: float = 1e-5) -> list[str]:
    """What is wrong with the drawn tokens; empty when each lies where the uniform number falls, up to `slack`."""
    wrong = []
    for r, token in enumerate(tokens):
        z = logits[r].astype(np.float64)
        for v, scale, add in settings.edits[r]:
            z[v] = (z[v] / scale if z[v] > 0 else z[v] * scale) + add
        temperature = float(np.float32(settings.temperature[r]))
        if temperature == 0:
            if token != np.argmax(z.astype(np.float32)):
                wrong.append(f"row {r}: {token} is not the argmax {np.argmax(z)}")
            continue
        p = np.exp((z - z.max()) / temperature)
        kept = p >= np.float32(settings.min_p[r]) * p.max()
        if settings.top_k[r] > 0 and kept.sum() > settings.top_k[r]:
            kept &= p >= np.sort(p[kept])[-settings.top_k[r]]
        if settings.top_p[r] < 1:
            order = np.sort(p[kept])[::-1]
            mass = np.cumsum(order) / order.sum()
            # A threshold within rounding of the boundary may fall on either side: allow both.
            strict = order[min(np.searchsorted(mass, float(np.float32(settings.top_p[r])) - slack), len(order) - 1)]
            loose = order[min(np.searchsorted(mass, float(np.float32(settings.top_p[r])) + slack), len(order) - 1)]
            choices = [kept & (p >= strict), kept & (p >= loose)]
        else:
            choices = [kept]
        fine = False
        for choice in choices:
            mass = np.cumsum(np.where(choice, p, 0.0))
            mass /= mass[-1]
            low = mass[token - 1] if token else 0.0
            fine |= bool(choice[token]) and low - slack <= settings.uniform[r] <= mass[token] + slack
        if not fine:
            wrong.append(f"row {r}: {token} at temperature {temperature}, top_k {settings.top_k[r]}, top_p {settings.top_p[r]}, min_p {settings.min_p[r]}")
    return wrong


def random_settings(rng: np.random.Generator, rows: int, vocabulary: int) -> Settings:
    """Every kind of row: greedy, plain, each cut alone and all together, flat and peaked, with edits."""
    edits = []
    for r in range(rows):
        count = int(rng.integers(0, 300)) if r % 3 == 0 else 0
        chosen = rng.choice(vocabulary, size=min(count, vocabulary // 2), replace=False)
        edits.append([(int(v), float(rng.uniform(0.8, 1.5)), float(rng.normal() * 2)) for v in chosen])
    return Settings(
        temperature=[float(rng.choice([0.0, 0.1, 0.6, 1.0, 2.0])) for _ in range(rows)],
        top_k=[int(rng.choice([0, 0, 1, 20, 50, 1000, 20000])) for _ in range(rows)],
        top_p=[float(rng.choice([1.0, 1.0, 0.95, 0.5, 0.01])) for _ in range(rows)],
        min_p=[float(rng.choice([0.0, 0.0, 0.05, 0.5])) for _ in range(rows)],
        uniform=[float(rng.uniform(0, 0.999)) for _ in range(rows)],
        edits=edits,
    )
