"""One step on the CPU: a batch in, the next token of each sampled row out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oi.runtime.artifact import Artifact, check_fits, open_artifact
from oi.runtime.batch import Batch
from oi.runtime.checkpoint import Checkpoint, read_config
from oi.runtime.copies import Copies
from oi.runtime.device.base import Device
from oi.runtime.device.cpu import CpuDevice
from oi.runtime.device.cpu_copies import CpuCopies
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.geometry import Geometry, capacity, host_slots, plan
from oi.runtime.memory import available
from oi.runtime.runner import Runner, StepResult

__all__ = ["StepRunner", "open_cpu_runner", "open_runner"]

_KV_SHARE = 0.25
"""Share of the machine's available memory that the KV pages may take when nobody says."""


class StepRunner:
    """Runs the artifact's programs on a device that computes while it is called. Not to be shared between threads."""

    overlaps = False
    copies: Copies | None = None

    def __init__(self, device: Device, geometry: Geometry) -> None:
        self.device = device
        self.geometry = geometry

    def start(self, batch: Batch) -> StepResult:
        """The whole step. Raises DeviceError."""
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

    def finish(self, handle: StepResult) -> StepResult:
        return handle


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


def open_runner(settings: EngineSettings) -> Runner:
    """Load an artifact and a checkpoint, plan and allocate. Raises an OiError that says the mend."""
    artifact = open_artifact(Path(settings.artifact))
    folder = Path(settings.checkpoint)
    check_fits(artifact, read_config(folder), folder)
    if artifact.manifest.target.kind == "cuda":
        from oi.runtime.device.cuda.runner import open_cuda_runner  # the driver's bindings load with it

        return open_cuda_runner(artifact, folder, settings)
    return open_cpu_runner(artifact, folder, settings)


def open_cpu_runner(artifact: Artifact, folder: Path, settings: EngineSettings) -> StepRunner:
    """Map the weights, allocate the rest. Raises DeviceError, ArtifactError, CheckpointError."""
    geometry = plan(artifact, settings, int(available() * _KV_SHARE))
    device = CpuDevice(artifact, Checkpoint(folder), capacity(geometry), settings.threads)
    runner = StepRunner(device, geometry)
    if settings.host_kv_bytes is not None:
        page_bytes = artifact.manifest.kv.page_bytes
        pages = device.state("kv").view(np.uint8).reshape(-1, page_bytes)
        runner.copies = CpuCopies(pages, host_slots(settings.host_kv_bytes, page_bytes))
    return runner
