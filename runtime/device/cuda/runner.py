"""From an artifact and a checkpoint to a runner that is ready: every graph captured, every weight in place.

Files are read while the GPU wakes; weights are uploaded while kernels are loaded and graphs captured.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from oi.runtime.artifact import Artifact
from oi.runtime.checkpoint import Checkpoint
from oi.runtime.cuda_library import Buckets, CudaLibrary
from oi.runtime.device.cuda.bind import Addresses, Binder
from oi.runtime.device.cuda.copies import CudaCopies, Steps
from oi.runtime.device.cuda.driver import Driver, load_bindings
from oi.runtime.device.cuda.graphs import Capture, Kernels, Ladder, Rung, sizes_up_to
from oi.runtime.device.cuda.host_pool import HostPool
from oi.runtime.device.cuda.inputs import NO_INPUTS, InputBlock, Layout
from oi.runtime.device.cuda.memory import Work, left_for_pages, work_sizes
from oi.runtime.device.cuda.steps import CudaRunner, Edits, Graphs, Output, Outputs
from oi.runtime.device.cuda.weights import Upload, plan_pieces
from oi.runtime.device.cuda.word_copies import WordCopies
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.errors import ArtifactError, DeviceError
from oi.runtime.geometry import Geometry, capacity, host_slots, plan
from oi.runtime.manifest import Manifest
from oi.runtime.target import cubins_for, runs_on

__all__ = ["open_cuda_runner", "open_on"]


def open_cuda_runner(artifact: Artifact, folder: Path, settings: EngineSettings) -> CudaRunner:
    """It keeps nothing of both on the host. Raises DeviceError, ArtifactError, CheckpointError."""
    return open_on(load_bindings(), artifact, folder, settings)


def open_on(bindings: Any, artifact: Artifact, folder: Path, settings: EngineSettings) -> CudaRunner:
    """The same with a stand-in for `cuda.bindings.driver`."""
    clock = _Clock()
    gc.disable()  # nothing that is made here is garbage before the end
    try:
        runner = _open(bindings, artifact, folder, settings, clock)
    finally:
        gc.enable()
    gc.collect()
    _give_back_heap()
    clock.lap("clean up")
    runner.startup_seconds = clock.laps
    return runner


def _open(bindings: Any, artifact: Artifact, folder: Path, settings: EngineSettings, clock: _Clock) -> CudaRunner:
    manifest = artifact.manifest
    with ThreadPoolExecutor(1) as background:
        waking = background.submit(Driver, bindings)
        library = _read_library(artifact)
        pieces = plan_pieces(manifest, Checkpoint(folder))
        clock.lap("read files")
        driver = waking.result()
    driver.use()
    _check_arch(driver, artifact)
    clock.lap("wake GPU")
    weights = driver.allocate(manifest.weight_bytes, "weights take")
    with Upload(driver, pieces, weights) as upload:
        stream = driver.stream()
        roomy = plan(artifact, settings, driver.memory()[0])
        block = _input_block(roomy, library.buckets)
        rows = sizes_up_to(library.buckets.rows, roomy.max_num_seqs)[-1]
        work = Work(driver, work_sizes(manifest, library, rows, 4 * block.words), stream)
        driver.call("cuStreamSynchronize", stream)  # else zeros may follow what is copied next, on another stream
        _copy_constants(driver, artifact, work["constants"])
        left = settings.kv_bytes or left_for_pages(driver, manifest.kv.page_bytes)
        geometry = _with_buckets(plan(artifact, settings, left), library.buckets)
        kv = _pages(driver, geometry.pages * manifest.kv.page_bytes, stream)
        clock.lap("allocate")
        at = work.group("io:")
        addresses = Addresses(weights, work["constants"], work["arena"], kv, at, work.group("scratch:"))
        binder = Binder(driver, manifest, library, addresses, geometry.pages)
        kernels = Kernels(driver, artifact, library)
        word_copies = WordCopies(driver, kernels, library, stream)
        capture = Capture(driver, kernels, library, stream)
        graphs = _Capturing(binder, capture, block, work["inputs"], work.group("edit:")).all(library.buckets, geometry)
        clock.lap("load and capture")
        upload.wait()
    driver.call("cuCtxSynchronize")
    clock.lap("rest of weights")
    edits = Edits(driver, word_copies, manifest.limits.max_edits, work.group("edit:"))
    outputs = _outputs(manifest, at)
    runner = CudaRunner(driver, stream, word_copies, geometry, graphs, block, work["inputs"], edits, outputs, rows)
    if settings.host_kv_bytes is not None:
        page_bytes = manifest.kv.page_bytes
        pool = HostPool(driver, host_slots(settings.host_kv_bytes, page_bytes), page_bytes)
        runner.copies = CudaCopies(driver, Steps(stream, runner.done_but), kv, pool)
    return runner


class _Clock:
    """Seconds of each phase, in order."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, phase: str) -> None:
        now = perf_counter()
        self.laps[phase] = now - self._last
        self._last = now


def _read_library(artifact: Artifact) -> CudaLibrary:
    path = artifact.path(artifact.manifest.library)
    try:
        return msgspec.json.decode(path.read_bytes(), type=CudaLibrary)
    except msgspec.MsgspecError as e:
        raise ArtifactError(f"{path} is of another oi: {e}; compile the artifact again with oi-compile") from e


def _check_arch(driver: Driver, artifact: Artifact) -> None:
    target, gpu = artifact.manifest.target.arch, driver.arch
    if not runs_on(target, gpu):
        other = "cpu" if (cubins := cubins_for(gpu)) is None else f"cuda:{cubins}"
        raise DeviceError(
            f"the artifact at {artifact.folder} is for {target}, this GPU is {gpu}; "
            f"compile another: oi-compile models/qwen3.py --target {other}"
        )


def _with_buckets(geometry: Geometry, buckets: Buckets) -> Geometry:
    return replace(geometry, token_buckets=tuple(sizes_up_to(buckets.tokens, geometry.max_step_tokens)))


def _input_block(geometry: Geometry, buckets: Buckets) -> InputBlock:
    sizes = capacity(geometry)
    tokens = sizes_up_to(buckets.tokens, sizes["T"])[-1]
    # graphs of `forward` are made for the artifact's most sequences, however many are asked for
    return InputBlock(tokens, buckets.rows[-1], sizes["S"] * sizes["P"])


def _copy_constants(driver: Driver, artifact: Artifact, address: int) -> None:
    if artifact.manifest.constants is not None:
        content = artifact.path(artifact.manifest.constants).read_bytes()
        driver.call("cuMemcpyHtoD", address, content, len(content))


def _pages(driver: Driver, size: int, stream: Any) -> int:
    """Zeroed once: what padding reads of a page must be finite."""
    address = driver.allocate(size, "KV pages take")
    driver.call("cuMemsetD8Async", address, 0, size, stream)
    return address


def _outputs(manifest: Manifest, addresses: Mapping[str, int]) -> Outputs:
    shapes = {name: b.shape for program in manifest.programs.values() for name, b in program.buffers.items()}
    widths = {name: [size for size in shapes[name][1:] if isinstance(size, int)] for name in addresses}
    return {name: Output(address, prod(widths[name])) for name, address in addresses.items()}


class _Capturing:
    """Captures every part of every program for every bucket that steps may need."""

    def __init__(
        self, binder: Binder, capture: Capture, block: InputBlock, inputs: int, edits: Mapping[str, int]
    ) -> None:
        self._binder = binder
        self._capture = capture
        self._block = block
        self._inputs = inputs
        self._edits = edits

    def all(self, buckets: Buckets, geometry: Geometry) -> Graphs:
        block = self._block
        decode_rows = sizes_up_to(buckets.decode_rows, geometry.max_num_seqs)
        tokens = sizes_up_to(buckets.tokens, geometry.max_step_tokens)
        rows = sizes_up_to(buckets.rows, geometry.max_num_seqs)
        return Graphs(
            decode=self._ladder("decode", "T", {size: block.decode(size) for size in decode_rows}),
            tokens=self._ladder("forward", "T", {size: block.forward(size) for size in tokens}),
            rows=self._ladder("forward", "R", dict.fromkeys(rows, block.rows)),
            greedy=self._ladder("greedy", "R", dict.fromkeys(rows, NO_INPUTS)),
            sample=self._ladder("sample", "R", {size: block.sample(size) for size in rows}),
            log_probs=self._ladder("log_probs", "R", dict.fromkeys(rows, NO_INPUTS)),
        )

    def _ladder(self, program: str, dim: str, layouts: Mapping[int, Layout]) -> Ladder:
        return Ladder([self._rung(program, dim, size, layout) for size, layout in layouts.items()])

    def _rung(self, program: str, dim: str, size: int, layout: Layout) -> Rung:
        inputs = {name: self._inputs + 4 * begin for name, (begin, _) in layout.arrays.items()}
        part = self._binder.part(program, dim, size, {**inputs, **self._edits})
        return Rung(size, self._capture.graph(part), layout)


def _give_back_heap() -> None:
    """What was needed to load is garbage now, and glibc keeps the heap of it unless asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
