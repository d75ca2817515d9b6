"""greedy takes the highest logit, the lowest token on a tie, zeros of either sign being equal."""

from __future__ import annotations

import pytest

from tests.kernels.cuda.triton_device import DEVICE, torch

# isort: split

from oi.codegen.cuda.kernels.sampling import Greedy
from oi.codegen.cuda.tuning.sampling_launch import GreedyLaunch

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("vocabulary", [512, 3001])
def test_greedy(vocabulary: int) -> None:
    logits = torch.randn(9, vocabulary, device=DEVICE) * 3
    logits[1] = logits[1].round()
    logits[2] = -torch.inf
    logits[2, 7] = -1e30
    logits[3] = 0.0
    logits[3, ::2] = -0.0
    logits[4] = -logits[4].abs()
    launch = GreedyLaunch(logits, Greedy(chunk=256))
    launch.run()
    expected = [int((row == row.max()).nonzero()[0]) for row in logits.cpu()]
    assert launch.token.tolist() == expected
