"""log_probs against float64, and its order on ties."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, INTERPRETED, torch

# isort: split

from oi.codegen.cuda.kernels.sampling import LogProbs
from oi.codegen.cuda.tuning.sampling_launch import LogProbsLaunch

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "one chunk", "masked"])
@pytest.mark.parametrize("candidates", [32] if INTERPRETED else [32, 1024])
def test_log_probs(candidates: int, kind: str) -> None:
    vocabulary = 3001
    logits = torch.randn(5, vocabulary, device=DEVICE) * 3
    if kind == "ties":
        logits = logits.round()
    elif kind == "equal":
        logits = torch.zeros_like(logits)
    elif kind == "one chunk":
        logits[:, 128:192] += 30
    elif kind == "masked":
        logits[:, 40:] = -torch.inf
    token = torch.randint(0, 40, (5,), dtype=torch.int32, device=DEVICE)
    launch = LogProbsLaunch(logits, token, LogProbs(chunk=64, candidates=candidates, block=512))
    launch.run()
    expected = logits.double().log_softmax(-1)
    best = expected.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(launch.top_tokens.long(), best.indices[:, :20])
    torch.testing.assert_close(launch.top.double(), best.values[:, :20], atol=2e-5, rtol=1e-6)
    chosen = expected.gather(1, token[:, None].long())[:, 0]
    torch.testing.assert_close(launch.chosen.double(), chosen, atol=2e-5, rtol=1e-6)
