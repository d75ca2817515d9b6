"""The CUDA target on a GPU, whole: the bundled model's text, draws, bit-equal runs, no allocation after ready.

Run there by `python -m pytest tests/e2e/test_cuda.py`; elsewhere it is skipped. It compiles for the GPU that it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oi.codegen.compiler import compile_artifact
from oi.codegen.model_file import load_model_file
from oi.runtime.artifact import open_artifact
from oi.runtime.artifact_path import installed_model_file
from oi.runtime.checkpoint import read_config
from oi.runtime.engine import Engine
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.errors import DeviceError
from oi.runtime.manifest import CudaMachine, Limits
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.step import open_runner
from oi.runtime.target import choose_target
from tests.e2e.conftest import Silent
from tests.e2e.test_greedy import GENERATED, PROMPTS, generate
from tests.runtime.fake_clock import fitful

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(choose_target().target == "cpu", reason="no NVIDIA GPU here")]

LIMITS = Limits(512, 64, 64 * 4096)


@pytest.fixture(scope="module")
def cuda_artifact(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from oi.codegen.cuda.target import CudaTarget

    folder = tmp_path_factory.mktemp("cuda") / "artifact"
    arch = choose_target().target.removeprefix("cuda:")
    model_file = load_model_file(installed_model_file("qwen3.py"))
    compile_artifact(model_file, read_config(bundled), CudaTarget.of(arch, LIMITS), LIMITS, folder, Silent())
    return folder


@pytest.fixture(scope="module")
def engine_with(bundled: Path, cuda_artifact: Path) -> Callable[..., Engine]:
    def make(**settings: int) -> Engine:
        """Its clock is the same in every run: what steps take says how prompts are cut, and that the last bits."""
        given = {"kv_bytes": 256 << 20, **settings}
        return Engine(open_runner(EngineSettings(str(cuda_artifact), str(bundled), **given)), fitful())

    return make


@pytest.fixture(scope="module")
def prompts(bundled: Path) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundled / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in PROMPTS]


@pytest.fixture(scope="module")
def near(bundled: Path) -> Callable[[list[int], list[int]], bool]:
    """Whether a continuation is Hugging Face's greedy one: each token is the float32 model's best, or tied with it.

    Tied: less likely by at most what bf16 arithmetic moves log-probabilities at p99.9 (tests print the largest).
    """
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(bundled, dtype=torch.float32).eval()

    def check(prompt: list[int], tokens: list[int]) -> bool:
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :]
        chosen = logits.gather(-1, torch.tensor(tokens)[:, None])[:, 0]
        regret = (logits.max(-1).values - chosen).max().item()
        print(f"largest regret {regret:.4f}")
        return regret < TIED

    return check


TIED = 0.15


def same(a: list[list[int]], b: list[list[int]]) -> float:
    """Share of tokens that are equal before the first difference."""
    total = sum(map(len, a))
    return (
        sum(
            next((i for i, (x, y) in enumerate(zip(s, t, strict=True)) if x != y), len(s))
            for s, t in zip(a, b, strict=True)
        )
        / total
    )


def test_greedy_text_is_hugging_faces(
    engine_with: Callable[..., Engine], prompts: list[list[int]], near: Callable[[list[int], list[int]], bool]
) -> None:
    engine = engine_with()
    alone = [generate(engine, [prompt])[0][0] for prompt in prompts]
    assert all(near(prompt, tokens) for prompt, tokens in zip(prompts, alone, strict=True))
    batched = generate(engine_with(), prompts)[0]
    assert all(near(prompt, tokens) for prompt, tokens in zip(prompts, batched, strict=True))
    chunked = generate(engine_with(max_step_tokens=37), prompts)[0]
    assert all(near(prompt, tokens) for prompt, tokens in zip(prompts, chunked, strict=True))
    print(f"alone = batched for {same(alone, batched):.1%} of tokens, = chunked for {same(alone, chunked):.1%}")


def test_cached_prefix(
    engine_with: Callable[..., Engine], prompts: list[list[int]], near: Callable[[list[int], list[int]], bool]
) -> None:
    engine = engine_with()
    first = generate(engine, prompts)[0]
    longer = [prompt + tokens[:40] for prompt, tokens in zip(prompts, first, strict=True)]
    tokens, cached = generate(engine, longer)
    assert all(0 < found < len(prompt) for found, prompt in zip(cached, longer, strict=True))
    assert all(near(prompt, found) for prompt, found in zip(longer, tokens, strict=True))


def test_preemption_and_eviction(
    engine_with: Callable[..., Engine],
    cuda_artifact: Path,
    prompts: list[list[int]],
    near: Callable[[list[int], list[int]], bool],
) -> None:
    longest = max(map(len, prompts)) + GENERATED
    kv = open_artifact(cuda_artifact).manifest.kv
    pages = 2 * -(-longest // kv.page_size) + 3
    engine = engine_with(max_model_len=longest, kv_bytes=pages * kv.page_bytes)
    tokens = generate(engine, prompts)[0]
    assert engine.stats().preemptions > 0
    assert all(near(prompt, found) for prompt, found in zip(prompts, tokens, strict=True))


def sampled(engine: Engine, prompts: list[list[int]], n: int = 3) -> list[tuple[list[int], list[float]]]:
    """Every prompt n times, sampled with all that there is to sampling, with log-probabilities."""
    params = SamplingParams(
        temperature=0.9,
        top_p=0.95,
        top_k=50,
        min_p=0.02,
        presence_penalty=0.3,
        repetition_penalty=1.1,
        logit_bias={65: 1.5},
    )
    out: dict[int, tuple[list[int], list[float]]] = {}
    for i, prompt in enumerate(prompts * n):
        out[i] = ([], [])
        engine.submit(Submit(i, prompt, replace_seed(params, i), max_tokens=24, logprobs=5))
    while engine.has_work:
        for token in engine.step().tokens:
            assert token.logprob is not None
            assert token.top is not None
            out[token.id][0].append(token.token)
            out[token.id][1].append(token.logprob)
    return list(out.values())


def replace_seed(params: SamplingParams, seed: int) -> SamplingParams:
    import msgspec

    return msgspec.structs.replace(params, seed=seed)


def test_two_runs_are_bit_equal(engine_with: Callable[..., Engine], prompts: list[list[int]]) -> None:
    assert sampled(engine_with(), prompts) == sampled(engine_with(), prompts)


def test_sampled_tokens_are_the_cpu_targets(
    engine_with: Callable[..., Engine], bundled: Path, prompts: list[list[int]], request: pytest.FixtureRequest
) -> None:
    """Same seeds, same draws: they differ only where bf16 moved a probability across a draw."""
    pytest.importorskip("tvm")
    bundled_artifact = request.getfixturevalue("bundled_artifact")
    ours = sampled(engine_with(), prompts)
    cpu = sampled(Engine(open_runner(EngineSettings(str(bundled_artifact), str(bundled), kv_bytes=64 << 20))), prompts)
    share = same([tokens for tokens, _ in ours], [tokens for tokens, _ in cpu])
    print(f"{share:.1%} of the tokens before the first difference")
    assert share > 0.6
    first = np.array([[a[1][0], b[1][0]] for a, b in zip(ours, cpu, strict=True) if a[0][0] == b[0][0]])
    assert np.abs(first[:, 0] - first[:, 1]).max() < 0.1


def test_nothing_is_allocated_after_ready(engine_with: Callable[..., Engine], prompts: list[list[int]]) -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    engine = engine_with()
    free = driver.cuMemGetInfo()[1]
    sampled(engine, prompts)
    generate(engine, prompts)
    assert driver.cuMemGetInfo()[1] == free


def test_another_architecture_is_refused(bundled: Path, cuda_artifact: Path, tmp_path: Path) -> None:
    import msgspec

    artifact = open_artifact(cuda_artifact)
    manifest = msgspec.structs.replace(artifact.manifest, target=CudaMachine("sm_35"))
    from oi.runtime.device.cuda.runner import open_cuda_runner

    with pytest.raises(DeviceError, match=r"oi-compile .*--target cuda:"):
        open_cuda_runner(
            replace(artifact, manifest=manifest), bundled, EngineSettings(str(cuda_artifact), str(bundled))
        )
