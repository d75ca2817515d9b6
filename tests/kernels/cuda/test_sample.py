"""sample draws the token where the uniform number falls (semantics: ir/ops/sampling.py), and restores the logits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.cuda.triton_device import DEVICE, INTERPRETED, torch

# isort: split

from oi.codegen.cuda.kernels.sampling import Sample
from oi.codegen.cuda.tuning.sampling_launch import SampleLaunch

pytestmark = pytest.mark.gpu

SLACK = 1e-5
"""Of a cumulative probability, for float32 sums."""


def random_operands(rng: np.random.Generator, rows: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """Each cut alone and all together, flat and peaked, with and without edits, ties, masked tokens."""
    logits = (rng.normal(size=(rows, vocabulary)) * 3).astype(np.float32)
    logits[1::4] = np.round(logits[1::4])
    logits[2::8, : vocabulary // 2] = -np.inf
    lens = np.where(np.arange(rows) % 3 == 0, rng.integers(0, 300, rows), 0)
    tokens = np.concatenate([rng.choice(vocabulary, n, replace=False) for n in lens])
    values = {
        "logits": logits,
        "edit_starts": np.cumsum(lens) - lens,
        "edit_lens": lens,
        "edit_tokens": np.append(tokens, 0),
        "edit_scale": rng.uniform(0.8, 1.5, len(tokens) + 1),
        "edit_add": rng.normal(size=len(tokens) + 1) * 2,
        "temperature": rng.choice([0.0, 0.1, 0.6, 1.0, 2.0], rows),
        "top_k": rng.choice([0, 0, 1, 20, 40, 200, 1000, 10 * vocabulary], rows),
        "top_p": rng.choice([1.0, 1.0, 0.95, 0.5, 0.01], rows),
        "min_p": rng.choice([0.0, 0.0, 0.05, 0.5], rows),
        "uniform": rng.uniform(0, 0.999, rows),
    }
    return {
        name: torch.tensor(x.astype(np.int32 if x.dtype.kind == "i" else np.float32), device=DEVICE)
        for name, x in values.items()
    }


def is_right(given: dict[str, np.ndarray], row: int, token: int) -> bool:
    """Steps 1 to 6 in float64; a threshold within SLACK of the top_p boundary may fall on either side."""
    z = given["logits"][row].astype(np.float64)
    first = given["edit_starts"][row]
    for e in range(first, first + given["edit_lens"][row]):
        v = given["edit_tokens"][e]
        z[v] = (z[v] / given["edit_scale"][e] if z[v] > 0 else z[v] * given["edit_scale"][e]) + given["edit_add"][e]
    if given["temperature"][row] == 0:
        return bool(token == np.argmax(z.astype(np.float32)))
    p = np.exp((z - z.max()) / given["temperature"][row])
    kept = p >= given["min_p"][row]
    top_k, top_p = given["top_k"][row], float(given["top_p"][row])
    if 0 < top_k < kept.sum():
        kept &= p >= np.sort(p[kept])[-top_k]
    choices = [kept]
    if top_p < 1:
        falling = np.sort(p[kept])[::-1]
        mass = np.cumsum(falling) / falling.sum()
        ends = np.minimum(np.searchsorted(mass, [top_p - SLACK, top_p + SLACK]), len(falling) - 1)
        choices = [kept & (p >= falling[end]) for end in ends]
    for choice in choices:
        mass = np.cumsum(np.where(choice, p, 0.0))
        mass /= mass[-1]
        below = mass[token - 1] if token else 0.0
        if choice[token] and below - SLACK <= given["uniform"][row] <= mass[token] + SLACK:
            return True
    return False


@pytest.mark.parametrize("rows", [6] if INTERPRETED else [24])
@pytest.mark.parametrize(("candidates", "ranked"), [(64, 16), (1024, 256), (4096, 16)])
def test_sample(candidates: int, ranked: int, rows: int) -> None:
    given = random_operands(np.random.default_rng(), rows, 3001)
    before = given["logits"].clone()
    launch = SampleLaunch(given, Sample(chunk=64, ranked=ranked, candidates=candidates, block=512))
    launch.run()
    arrays = {name: x.cpu().numpy() for name, x in given.items()}
    wrong = [row for row, token in enumerate(launch.token.tolist()) if not is_right(arrays, row, token)]
    assert not wrong, {n: [float(arrays[n][r]) for r in wrong] for n in ("temperature", "top_k", "top_p", "min_p")}
    assert torch.equal(given["logits"], before), "the logits were not restored"
    first = launch.token.clone()
    launch.run()
    assert torch.equal(launch.token, first), "two runs differ"
