"""Steps of a model that can be computed by hand, on a GPU that is a stand-in: what is drawn, and from which graph."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from oi.runtime.artifact import Artifact
from oi.runtime.batch import Batch, SampleInputs
from oi.runtime.device.cuda.runner import open_on
from oi.runtime.device.cuda.steps import CudaRunner
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.errors import ArtifactError, CheckpointError, DeviceError
from oi.runtime.manifest import File
from oi.runtime.runner import StepResult
from tests.runtime.device.cuda_model import LIMITS, PAGE, PRIME, TOP, VOCAB, fake_cuda, hidden, write_model
from tests.runtime.device.fake_cuda import ILLEGAL_ADDRESS, OUT_OF_MEMORY, FakeCuda

PAGES = 40


def settings(**changes: int) -> EngineSettings:
    return EngineSettings("", "", **{"kv_bytes": PAGES * PAGE * 4, **changes})


@pytest.fixture
def cuda() -> FakeCuda:
    return fake_cuda()


@pytest.fixture
def runner(cuda: FakeCuda, tmp_path: Path) -> CudaRunner:
    return open_on(cuda, *write_model(tmp_path), settings())


class Sequence:
    """Tokens so far, and pages for as many as there may be."""

    def __init__(self, tokens: list[int], pages: list[int]) -> None:
        self.tokens = tokens
        self.pages = pages
        self.computed = 0


Part = tuple[Sequence, int, bool, int | None]
"""A sequence, its next tokens, whether one is drawn, and the row of the step before that draws its only token."""


def make_batch(parts: list[Part], sampling: SampleInputs | None = None,
               want_logprobs: bool = False) -> Batch:  # fmt: skip
    starts = np.cumsum([0, *(count for _, count, _, _ in parts)]).astype(np.int32)
    tokens, positions, slots = [], [], []
    width = max(-(-(s.computed + count) // PAGE) for s, count, _, _ in parts)
    table = np.full((len(parts), width), -1, np.int32)
    for i, (sequence, count, _, pending) in enumerate(parts):
        at = range(sequence.computed, sequence.computed + count)
        table[i, : -(-at.stop // PAGE)] = sequence.pages[: -(-at.stop // PAGE)]
        tokens += sequence.tokens[at.start : at.stop] if pending is None else [-1 - pending]
        positions += at
        slots += [sequence.pages[p // PAGE] * PAGE + p % PAGE for p in at]
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=np.array(positions, np.int32),
        slots=np.array(slots, np.int32),
        query_starts=starts[:-1].copy(),
        query_lens=np.diff(starts).astype(np.int32),
        context_lens=np.array([s.computed + count for s, count, _, _ in parts], np.int32),
        page_table=table,
        rows=(starts[1:] - 1)[[sampled for _, _, sampled, _ in parts]].astype(np.int32),
        sampling=sampling,
        want_logprobs=want_logprobs,
    )


def scribble(batch: Batch) -> None:
    """The arrays are the engine's again once a step is started."""
    for record in (batch, batch.sampling):
        for field in fields(record) if record is not None else ():
            if isinstance(array := getattr(record, field.name), np.ndarray):
                array[...] = 0x5A5A


def sampling(rows: int, edits: int, rng: np.random.Generator) -> SampleInputs:
    lens = rng.multinomial(edits, np.full(rows, 1 / rows)).astype(np.int32)

    def row() -> np.ndarray:
        return rng.integers(50, size=rows).astype(np.float32)

    return SampleInputs(
        edit_starts=(np.cumsum(lens) - lens).astype(np.int32),
        edit_lens=lens,
        edit_tokens=rng.integers(9, size=edits).astype(np.int32),
        edit_scale=rng.integers(9, size=edits).astype(np.float32),
        edit_add=rng.integers(9, size=edits).astype(np.float32),
        temperature=row(), top_k=rng.integers(9, size=rows).astype(np.int32), top_p=row(), min_p=row(), uniform=row(),
    )  # fmt: skip


def drawn(value: int, inputs: SampleInputs | None, row: int) -> int:
    if inputs is None:
        return value
    span = slice(inputs.edit_starts[row], inputs.edit_starts[row] + inputs.edit_lens[row])
    edits = sum(a[span].sum() for a in (inputs.edit_tokens, inputs.edit_scale, inputs.edit_add))
    names = ("temperature", "top_k", "top_p", "min_p", "uniform")
    return int(value + edits + sum(getattr(inputs, name)[row] for name in names)) % PRIME


def sequences(count: int, rng: np.random.Generator) -> list[Sequence]:
    """The first one's first token is in slot 0, where padding must not write, and is not 0, which it would write."""
    pages = [0, *(1 + rng.permutation(PAGES - 1)).tolist()]
    return [
        Sequence((1 + rng.integers(VOCAB - 1, size=rng.integers(1, 12))).tolist(), pages[i * 9 : (i + 1) * 9])
        for i in range(count)
    ]


@dataclass
class Flight:
    """A step that was started, and what it must answer."""

    handle: Any
    drawing: list[Sequence]
    expected: list[int]
    log_probs: bool


class Mixture:
    """Random chunks and decodes, sampled or not; every step is started before the one ahead is finished."""

    def __init__(self, runner: CudaRunner) -> None:
        self.runner = runner
        self.rng = np.random.default_rng()
        self.running = sequences(LIMITS.max_sequences, self.rng)
        self.flight: Flight | None = None

    def step(self) -> None:
        parts = self.parts()
        flight = self.start(parts) if parts else None
        if self.flight is not None:
            self.land(self.flight)
        self.flight = flight

    def parts(self) -> list[Part]:
        """A sequence whose draw is in flight has one token to compute, which only the device knows."""
        drawing = [] if self.flight is None else self.flight.drawing
        budget = LIMITS.max_tokens
        parts: list[Part] = []
        for sequence in self.running:
            pending = drawing.index(sequence) if sequence in drawing else None
            left = len(sequence.tokens) + (pending is not None) - sequence.computed
            if not left or not budget or len(sequence.tokens) >= 30 or self.rng.random() < 0.2:
                continue
            count = int(self.rng.integers(1, min(left, budget) + 1)) if pending is None else 1
            parts.append((sequence, count, count == left, pending))
            budget -= count
        return parts

    def start(self, parts: list[Part]) -> Flight:
        rng = self.rng
        drawing = [sequence for sequence, _, sampled, _ in parts if sampled]
        inputs = sampling(len(drawing), int(rng.integers(9)), rng) if drawing and rng.random() < 0.5 else None
        batch = make_batch(parts, deepcopy(inputs), bool(rng.random() < 0.3))
        handle = self.runner.start(batch)
        scribble(batch)
        for sequence, count, _, _ in parts:
            sequence.computed += count
        known = self.flight.expected if self.flight else []
        before = self.flight.drawing if self.flight else []
        contexts = [
            s.tokens[: s.computed] if s not in before else [*s.tokens, known[before.index(s)]][: s.computed]
            for s in drawing
        ]
        expected = [drawn(hidden(context), inputs, row) for row, context in enumerate(contexts)]
        return Flight(handle, drawing, expected, batch.want_logprobs)

    def land(self, flight: Flight) -> None:
        result = self.runner.finish(flight.handle)
        assert result.tokens.tolist() == flight.expected
        for sequence, token in zip(flight.drawing, flight.expected, strict=True):
            sequence.tokens.append(token)
        if flight.log_probs and flight.drawing:
            check_log_probs(result, flight.expected)
        else:
            assert result.logprobs is None


def check_log_probs(result: StepResult, tokens: list[int]) -> None:
    assert result.logprobs is not None
    assert result.top_tokens is not None
    assert result.top_logprobs is not None
    assert result.logprobs.tolist() == [-token for token in tokens]
    assert result.top_tokens.tolist() == np.arange(len(tokens) * TOP).reshape(-1, TOP).tolist()
    assert result.top_logprobs.shape == (len(tokens), TOP)
    assert result.top_logprobs.dtype == np.float32


def play(runner: CudaRunner) -> None:
    mixture = Mixture(runner)
    for _ in range(40):
        mixture.step()
    assert all(len(sequence.tokens) > 20 for sequence in mixture.running)


def test_any_mixture_with_a_step_in_flight(runner: CudaRunner) -> None:
    play(runner)


@pytest.mark.parametrize(
    ("counts", "sampled", "expected"),
    [
        ([1], [True], ["decode[1]", "greedy[1]"]),
        ([1, 1, 1], [True] * 3, ["decode[4]", "greedy[4]"]),
        ([1, 1], [True, False], ["forward[4]", "forward's rows[1]", "greedy[1]"]),
        ([3, 2], [True, True], ["forward[16]", "forward's rows[4]", "greedy[4]"]),
        ([4], [False], ["forward[4]"]),
    ],
)
def test_which_graphs_a_step_takes(
    runner: CudaRunner, counts: list[int], sampled: list[bool], expected: list[str]
) -> None:
    parts = [
        (s, n, d, None)
        for s, n, d in zip(sequences(len(counts), np.random.default_rng()), counts, sampled, strict=True)
    ]
    for part in parts:
        part[0].tokens = [1] * 5
    handle = runner.start(make_batch(parts))  # type: ignore[arg-type]
    assert handle.graphs == expected
    runner.finish(handle)


def test_logits_of_the_last_step(runner: CudaRunner) -> None:
    a, b = Sequence([1, 2, 2], [7]), Sequence([2, 1], [3])
    runner.finish(runner.start(make_batch([(a, 3, True, None), (b, 2, True, None)])))
    want = np.outer([hidden(a.tokens), hidden(b.tokens)], np.arange(1, VOCAB + 1))
    assert runner.logits(2).tolist() == want.tolist()


def test_nothing_is_allocated_after_ready(cuda: FakeCuda, runner: CudaRunner) -> None:
    before = {name: count for name, count in cuda.calls.items() if "Alloc" in name or "Create" in name}
    held = set(cuda.blocks), set(cuda.pinned)
    play(runner)
    assert {name: count for name, count in cuda.calls.items() if "Alloc" in name or "Create" in name} == before
    assert (set(cuda.blocks), set(cuda.pinned)) == held


def test_constants_are_not_zeroed_once_they_are_there(cuda: FakeCuda, tmp_path: Path) -> None:
    """Memory is zeroed on a stream, which runs when it likes."""
    artifact, checkpoint = write_model(tmp_path)
    content = np.random.default_rng().bytes(96)
    (tmp_path / "constants.bin").write_bytes(content)
    files = {**artifact.manifest.files, "constants.bin": File("", len(content))}
    manifest = replace(artifact.manifest, constants="constants.bin", files=files)
    open_on(cuda, Artifact(tmp_path, manifest), checkpoint, settings())
    cuda.cuCtxSynchronize()
    assert any(content in bytes(block) for block in cuda.blocks.values())


def test_steps_leave_the_copy_engines_alone(cuda: FakeCuda, runner: CudaRunner) -> None:
    """KV pages that leave or come back keep them busy for longer than a step takes."""
    before = {name: count for name, count in cuda.calls.items() if "Memcpy" in name}
    play(runner)
    assert {name: count for name, count in cuda.calls.items() if "Memcpy" in name} == before


def test_a_step_too_many_in_flight_overwrites_nothing(runner: CudaRunner) -> None:
    """Unfinished steps fill the ring: the next waits for the first, whose inputs are in use."""
    one = Sequence([1, 2, 0, 2, 1, 1, 2, 0, 2, 2], [5, 9, 2])
    handles = []
    for _ in range(10):
        handles.append(runner.start(make_batch([(one, 1, True, None)])))
        one.computed += 1
    assert runner.finish(handles[-1]).tokens.tolist() == [hidden(one.tokens)]


def test_a_failure_names_the_graphs(cuda: FakeCuda, runner: CudaRunner) -> None:
    handle = runner.start(make_batch([(Sequence([1], [0]), 1, True, None)]))
    cuda.fail_next["cuEventSynchronize"] = ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match=r"decode\[1\], greedy\[1\].*700"):
        runner.finish(handle)


def test_a_step_over_what_was_captured_is_refused(cuda: FakeCuda, tmp_path: Path) -> None:
    runner = open_on(cuda, *write_model(tmp_path), settings(max_num_seqs=2))
    rows = [(s, 1, True, None) for s in sequences(3, np.random.default_rng())]
    with pytest.raises(DeviceError, match="over the 2"):
        runner.start(make_batch(rows))  # type: ignore[arg-type]


def test_only_buckets_that_steps_may_need_are_captured(cuda: FakeCuda, tmp_path: Path) -> None:
    open_on(cuda, *write_model(tmp_path), settings(max_num_seqs=1, max_step_tokens=3))
    assert len(cuda.graphs) == 1 + 1 + 4  # decode[1], forward[4], and forward's rows, greedy, sample, log_probs of 1


def test_first_launches_are_not_dependent(cuda: FakeCuda, runner: CudaRunner) -> None:
    """The first of a graph, and the first behind the prologue, which is there once."""
    decode = next(graph for graph in cuda.graphs if graph[-1].entry == "all_rows")
    assert [(launch.entry, launch.dependent) for launch in decode] == [
        ("prologue", False),
        ("write", False),
        ("attend", True),
        ("all_rows", True),
    ]
    assert all(launch.threads == 128 and launch.shared == 1024 for launch in decode)


def test_everything_begins_zeroed(cuda: FakeCuda, runner: CudaRunner) -> None:
    weights, *others = cuda.blocks.values()
    assert bytes(weights)[128:256] == np.arange(1, 65, dtype=np.uint16).tobytes()
    assert not any(any(memory) for memory in others)


def test_staging_of_weights_is_freed(cuda: FakeCuda, runner: CudaRunner) -> None:
    assert sum(len(memory) for memory in cuda.pinned.values()) < 1 << 20
    assert list(runner.startup_seconds) == [
        "read files",
        "wake GPU",
        "allocate",
        "load and capture",
        "rest of weights",
        "clean up",
    ]


def test_another_gpu(cuda: FakeCuda, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"for sm_80, this GPU is sm_90.*--target cuda:sm_90"):
        open_on(cuda, *write_model(tmp_path, arch="sm_80"), settings())


def test_a_gpu_without_kernels_of_its_own(cuda: FakeCuda, tmp_path: Path) -> None:
    cuda.arch = "sm_103"
    with pytest.raises(DeviceError, match=r"for sm_90, this GPU is sm_103.*--target cpu"):
        open_on(cuda, *write_model(tmp_path), settings())


def test_a_gpu_that_runs_the_cubins_of_another(cuda: FakeCuda, tmp_path: Path) -> None:
    cuda.arch = "sm_86"
    runner = open_on(cuda, *write_model(tmp_path, arch="sm_80"), settings())
    one = Sequence([1, 2, 1], [7])
    assert runner.finish(runner.start(make_batch([(one, 3, True, None)]))).tokens.tolist() == [hidden(one.tokens)]


def test_memory_that_is_not_there(cuda: FakeCuda, tmp_path: Path) -> None:
    cuda.fail_next["cuMemAlloc"] = OUT_OF_MEMORY
    with pytest.raises(DeviceError, match=r"weights take 0 MiB; the GPU has .* free"):
        open_on(cuda, *write_model(tmp_path), settings())


def test_pages_take_what_is_left(cuda: FakeCuda, tmp_path: Path) -> None:
    cuda.total = 4 << 30
    runner = open_on(cuda, *write_model(tmp_path), EngineSettings("", ""))
    assert runner.geometry.pages == LIMITS.max_sequences * 48 // PAGE  # all that sequences could ever fill


def test_no_room_for_pages(cuda: FakeCuda, tmp_path: Path) -> None:
    cuda.total = 100 << 20
    with pytest.raises(
        DeviceError, match=r"leave 99 of the GPU's 100 MiB free, graphs and a first KV page take 512: end"
    ):
        open_on(cuda, *write_model(tmp_path), EngineSettings("", ""))


def test_a_checkpoint_of_another_shape(cuda: FakeCuda, tmp_path: Path) -> None:
    artifact, checkpoint = write_model(tmp_path)
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"shape": [64]', b'"shape":[8,8]'))
    with pytest.raises(CheckpointError, match=r"bf16\[8, 8\] in the checkpoint, bf16\[64\] in the artifact"):
        open_on(cuda, artifact, checkpoint, settings())


def test_a_library_that_is_not_one(cuda: FakeCuda, tmp_path: Path) -> None:
    artifact, checkpoint = write_model(tmp_path)
    (tmp_path / "library.json").write_text("{}")
    with pytest.raises(ArtifactError, match="compile the artifact again"):
        open_on(cuda, artifact, checkpoint, settings())
