"""One step on the device: a batch in, the next token of each sampled row out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oi.runtime.artifact import Artifact, check_fits, open_artifact
from oi.runtime.batch import Batch
from oi.runtime.checkpoint import Checkpoint, read_config
from oi.runtime.device.base import Device
from oi.runtime.device.cpu import CpuDevice
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.errors import DeviceError

__all__ = ["Geometry", "StepResult", "StepRunner", "open_runner"]

_KV_SHARE = 0.25
"""Share of the machine's available memory that the KV pages may take when nobody says."""


@dataclass(frozen=True)
class Geometry:
    """Sizes that the scheduler plans with."""

    max_model_len: int
    """Longest prompt + generation, in tokens."""
    max_num_seqs: int
    max_step_tokens: int
    max_edits: int
    pages: int
    page_size: int
    vocab_size: int


@dataclass(frozen=True)
class StepResult:
    """By sampled row, in the batch's order. The last three are None unless the batch wants log-probabilities."""

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32] | None = None
    top_tokens: NDArray[np.int32] | None = None
    """[R, 20], the most likely first."""
    top_logprobs: NDArray[np.float32] | None = None


class StepRunner:
    """Runs the artifact's programs on a device. Not to be shared between threads."""

    def __init__(self, device: Device, geometry: Geometry) -> None:
        self.device = device
        self.geometry = geometry

    def run(self, batch: Batch) -> StepResult:
        """One step. Raises DeviceError."""
        device = self.device
        dims = {
            "T": len(batch.tokens),
            "S": len(batch.query_starts),
            "R": len(batch.rows),
            "P": batch.page_table.shape[1],
            "N": self.geometry.pages,
            "E": 0 if batch.sampling is None else len(batch.sampling.edit_tokens),
        }
        for name in _STEP_INPUTS:
            device.write(name, getattr(batch, name))
        device.run("forward", dims)
        if not len(batch.rows):
            return StepResult(np.empty(0, np.int32))
        if batch.sampling is None:
            device.run("greedy", dims)
        else:
            for name in _SAMPLE_INPUTS:
                device.write(name, getattr(batch.sampling, name))
            device.run("sample", dims)
        tokens = device.read("sampled", dims).copy()
        if not batch.want_logprobs:
            return StepResult(tokens)
        device.run("log_probs", dims)
        return StepResult(tokens, *(device.read(name, dims).copy() for name in _LOG_PROBS))


_STEP_INPUTS = (
    "tokens",
    "positions",
    "slots",
    "query_starts",
    "query_lens",
    "context_lens",
    "page_table",
    "rows",
)
_SAMPLE_INPUTS = (
    "edit_starts",
    "edit_lens",
    "edit_tokens",
    "edit_scale",
    "edit_add",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "uniform",
)
_LOG_PROBS = ("sampled_logprob", "top_tokens", "top_logprobs")


def open_runner(settings: EngineSettings) -> StepRunner:
    """Load an artifact and a checkpoint, plan and allocate. Raises an OiError that says the mend."""
    artifact = open_artifact(Path(settings.artifact))
    folder = Path(settings.checkpoint)
    check_fits(artifact, read_config(folder), folder)
    geometry = plan(artifact, settings)
    device = CpuDevice(artifact, Checkpoint(folder), _capacity(geometry), settings.threads)
    return StepRunner(device, geometry)


def plan(artifact: Artifact, settings: EngineSettings) -> Geometry:
    """Sizes from the artifact's limits, the settings and the machine's memory. Raises DeviceError."""
    kv, limits, model = artifact.manifest.kv, artifact.manifest.limits, artifact.manifest.model
    sequences = _within(
        "--max-num-seqs", settings.max_num_seqs, limits.max_sequences, "or compile with oi-compile --max-sequences N"
    )
    wanted_len = _within("--max-model-len", settings.max_model_len, model.max_position, "the model knows no more")
    budget = settings.kv_bytes or int(_available_memory() * _KV_SHARE)
    pages = min(budget // kv.page_bytes, sequences * -(-wanted_len // kv.page_size))
    longest = min(wanted_len, pages * kv.page_size)
    if (settings.max_model_len is not None and longest < wanted_len) or longest < kv.page_size:
        raise DeviceError(
            f"a context of {wanted_len} tokens needs {-(-wanted_len // kv.page_size) * kv.page_bytes >> 20} MiB of KV "
            f"pages, {budget >> 20} MiB are to be had; lower --max-model-len"
        )
    return Geometry(
        max_model_len=longest,
        max_num_seqs=sequences,
        max_step_tokens=_within(
            "a step's tokens", settings.max_step_tokens, limits.max_tokens, "or compile with oi-compile --max-tokens N"
        ),
        max_edits=limits.max_edits,
        pages=pages,
        page_size=kv.page_size,
        vocab_size=model.vocab_size,
    )


def _capacity(geometry: Geometry) -> Mapping[str, int]:
    return {
        "T": geometry.max_step_tokens,
        "S": geometry.max_num_seqs,
        "R": geometry.max_num_seqs,
        "P": -(-geometry.max_model_len // geometry.page_size),
        "N": geometry.pages,
        "E": geometry.max_edits,
    }


def _within(what: str, wanted: int | None, limit: int, mend: str) -> int:
    if wanted is None:
        return limit
    if not 1 <= wanted <= limit:
        raise DeviceError(f"{what} must be from 1 to {limit}, found {wanted}; give one of those, {mend}")
    return wanted


def _available_memory() -> int:
    """Bytes that can be allocated without swapping, the page cache's counted in."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
