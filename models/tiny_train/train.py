"""The training loop: AdamW on random windows of one token stream, stopped by the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .network import Network

PHASES = ((1024, 0.75), (4096, 1.0))
"""(context in tokens, share of the run after which it ends): long contexts cost more and need less."""
LEARNING_RATE = 3e-3
WARMUP = 0.02
EVALUATIONS = 20
CONTEXT = 1024
"""Of an evaluation."""


@dataclass
class Budget:
    """A run ends after `minutes`, or after `steps` where given; the schedule follows the share that is spent."""

    minutes: float
    steps: int | None
    start: float = field(default_factory=time.monotonic)

    def spent(self, step: int) -> float:
        return step / self.steps if self.steps else (time.monotonic() - self.start) / (60 * self.minutes)


@dataclass(frozen=True)
class History:
    steps: int
    tokens: int
    seconds: float
    compiled: bool
    curve: list[dict[str, float]]
    """Validation loss in nats per token, by step."""


def train(
    network: Network, stream: Tensor, validation: Tensor, *, minutes: float, steps: int | None, batch_tokens: int
) -> History:
    """Train `network` in place on `stream` (i64[tokens], on its device) and leave the weights that validated best."""
    optimizer = _optimizer(network)
    forward, compiled = _compile(network, batch_tokens)
    budget, tokens, step, spent = Budget(minutes, steps), 0, 0, 0.0
    curve: list[dict[str, float]] = []
    best, best_state = float("inf"), network.state_dict()
    while spent < 1:
        context = next(c for c, end in PHASES if spent < end)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(spent / WARMUP, (1 - spent) / (1 - WARMUP), 1)
        loss = _step(network, forward, optimizer, _windows(stream, context, batch_tokens))
        step, tokens = step + 1, tokens + _rows(context, batch_tokens) * context
        spent = budget.spent(step)
        if spent * EVALUATIONS >= len(curve) + 1 or spent >= 1:
            nats = evaluate(network, validation)
            curve.append({"step": step, "train": round(loss.item(), 4), "validation": round(nats, 4)})
            seconds = time.monotonic() - budget.start
            print(f"{seconds:6.0f} s  step {step:6d}  train {loss.item():.4f}  validation {nats:.4f}", flush=True)
            if nats < best:
                best, best_state = nats, {k: v.detach().clone() for k, v in network.state_dict().items()}
    network.load_state_dict(best_state)
    return History(step, tokens, time.monotonic() - budget.start, compiled, curve)


def evaluate(network: Network, stream: Tensor, *, exact: bool = False) -> float:
    """Mean loss in nats per token over `stream`, in rows of 1,024; `exact` computes in float32.

    The stream holds more than one row.
    """
    rows = (len(stream) - 1) // CONTEXT
    batches = list(torch.split(stream[: rows * CONTEXT + 1].unfold(0, CONTEXT + 1, CONTEXT), 16))
    if (rest := stream[rows * CONTEXT :]).numel() > 1:
        batches.append(rest[None])
    network.eval()
    total, count = 0.0, 0
    with torch.no_grad(), _autocast(stream.device, enabled=not exact):
        for batch in batches:
            predicted = batch.shape[0] * (batch.shape[1] - 1)
            total, count = total + network(batch).item() * predicted, count + predicted
    network.train()
    return total / count


def _optimizer(network: Network) -> torch.optim.Optimizer:
    parameters = dict(network.named_parameters())
    decayed = [p for n, p in parameters.items() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in parameters.items() if p.dim() != 2 or "embed" in n]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    fused = next(network.parameters()).device.type == "cuda"
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), fused=fused)


def _step(network: Network, forward: Any, optimizer: torch.optim.Optimizer, window_NT: Tensor) -> Tensor:
    with _autocast(window_NT.device):
        loss: Tensor = forward(window_NT)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def _autocast(device: torch.device, enabled: bool = True) -> torch.autocast:
    """bfloat16 arithmetic over float32 weights, where it is faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and device.type == "cuda")


def _windows(stream: Tensor, context: int, batch_tokens: int) -> Tensor:
    """Random windows i64[N, context + 1] of the stream, N · context = batch_tokens."""
    starts = torch.randint(len(stream) - context, (_rows(context, batch_tokens), 1), device=stream.device)
    return stream[starts + torch.arange(context + 1, device=stream.device)]


def _rows(context: int, batch_tokens: int) -> int:
    return max(1, batch_tokens // context)


def _compile(network: Network, batch_tokens: int) -> tuple[Any, bool]:
    """The network, compiled for each context before the clock starts; as it is, where that fails or on the CPU."""
    device = next(network.parameters()).device
    if device.type != "cuda":
        return network, False
    compiled = torch.compile(network, dynamic=False)
    try:
        for context, _ in PHASES:
            began = time.monotonic()
            window = torch.zeros(_rows(context, batch_tokens), context + 1, dtype=torch.int64, device=device)
            with _autocast(device):
                compiled(window).backward()
            torch.cuda.synchronize()
            print(f"compiled for context {context} in {time.monotonic() - began:.0f} s", flush=True)
    except Exception as e:
        print(f"torch.compile failed, training goes on without: {e}", flush=True)
        return network, False
    finally:
        network.zero_grad()
    return compiled, True
