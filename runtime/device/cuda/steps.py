"""Steps on a GPU: one copy in, a graph or two, a draw, one copy out; all on one stream, in order.

    decode     every sequence has one token and each is sampled   [decode T]            ─┐
    otherwise                                                     [forward T][forward R] ├─[greedy|sample][log_probs]
    no row is sampled                                             [forward T]            ─┘

`start` returns when all that is queued. Pinned blocks for inputs and results go around in a ring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oi.runtime.batch import Batch, SampleInputs
from oi.runtime.copies import Copies
from oi.runtime.device.cuda.driver import Driver, Pinned
from oi.runtime.device.cuda.graphs import Ladder, Rung
from oi.runtime.device.cuda.inputs import InputBlock, fill_sample, fill_step
from oi.runtime.device.cuda.word_copies import WordCopies
from oi.runtime.errors import DeviceError
from oi.runtime.geometry import Geometry
from oi.runtime.runner import StepResult

__all__ = ["CudaRunner", "Edits", "Graphs", "Output", "Outputs"]

_RING = 3
"""Steps whose inputs or results may be on the host at once: one runs, one is queued, one is being made or read."""

_LOG_PROBS = ("sampled_logprob", "top_tokens", "top_logprobs")


class Graphs(NamedTuple):
    """One ladder for each part of the programs."""

    decode: Ladder
    tokens: Ladder
    rows: Ladder
    greedy: Ladder
    sample: Ladder
    log_probs: Ladder


class Output(NamedTuple):
    address: int
    """On the GPU."""
    width: int
    """Words of a row."""


Outputs = dict[str, Output]
"""`logits`, `sampled`, `sampled_logprob`, `top_tokens`, `top_logprobs`."""


class _Slot:
    """A step's pinned inputs and results, and the event after which the GPU is done with both."""

    def __init__(self, driver: Driver, input_words: int, rows: int, outputs: Outputs) -> None:
        inputs = Pinned(driver, 4 * input_words)
        self.inputs = inputs.address
        self.words: NDArray[np.int32] = inputs.memory.view(np.int32)
        self.results = {name: _Result(driver, rows, outputs[name].width) for name in ("sampled", *_LOG_PROBS)}
        self.event = driver.event()


class _Result:
    """Pinned rows of one output."""

    def __init__(self, driver: Driver, rows: int, width: int) -> None:
        pinned = Pinned(driver, 4 * rows * width)
        self.address = pinned.address
        self._words: NDArray[np.int32] = pinned.memory.view(np.int32).reshape(rows, width)

    def take(self, rows: int) -> NDArray[np.int32]:
        """i32[rows, width], a copy."""
        return self._words[:rows].copy()


class Edits:
    """The logit edits' block: one on the host for all steps, for it may be large and is seldom used."""

    def __init__(self, driver: Driver, copies: WordCopies, most: int, addresses: Mapping[str, int]) -> None:
        """`addresses`: on the GPU, by name."""
        self._driver = driver
        self._copies = copies
        self._addresses = addresses
        self._pinned = {name: Pinned(driver, 4 * most) for name in addresses}
        self._copied = driver.event()

    def send(self, sampling: SampleInputs, stream: Any) -> None:
        self._driver.call("cuEventSynchronize", self._copied)  # they were copied when the step before began
        for name, pinned in self._pinned.items():
            array = getattr(sampling, name)
            pinned.memory[: array.nbytes] = array.view(np.uint8)
            self._copies.copy(self._addresses[name], pinned.address, len(array))
        self._driver.call("cuEventRecord", self._copied, stream)


@dataclass(frozen=True, slots=True)
class _Handle:
    slot: _Slot
    rows: int
    log_probs: bool
    graphs: list[str]
    """What was launched, for the error that says where it failed."""


class CudaRunner:
    """See runner.Runner. Not to be shared between threads."""

    overlaps = True
    copies: Copies | None = None

    def __init__(
        self,
        driver: Driver,
        stream: Any,
        word_copies: WordCopies,
        geometry: Geometry,
        graphs: Graphs,
        block: InputBlock,
        inputs: int,
        edits: Edits,
        outputs: Outputs,
        rows: int,
    ) -> None:
        """`inputs`: address of the input block on the GPU. `rows`: the most that graphs were captured for."""
        self.geometry = geometry
        self.startup_seconds: dict[str, float] = {}
        """By phase, in order; for benches."""
        self._driver = driver
        self._stream = stream
        self._word_copies = word_copies
        self._graphs = graphs
        self._inputs = inputs
        self._edits = edits
        self._outputs = outputs
        self._ring = [_Slot(driver, block.words, rows, outputs) for _ in range(_RING)]
        self._started = 0

    def start(self, batch: Batch) -> _Handle:
        slot = self._ring[self._started % _RING]
        self._started += 1
        self._driver.call("cuEventSynchronize", slot.event)  # long past, unless steps are started and never finished
        rows = len(batch.rows)
        decodes = len(batch.tokens) == len(batch.query_starts) == rows
        rung = self._graphs.decode.hold(rows) if decodes else self._graphs.tokens.hold(len(batch.tokens))
        self._copy_in(slot, 0, fill_step(slot.words, rung.layout, batch))
        if rows and batch.sampling is not None:
            self._send(slot, batch.sampling, rows)
        handle = _Handle(slot, rows, batch.want_logprobs and rows > 0, [])
        self._launch(handle, "decode" if decodes else "forward", rung)
        if rows and not decodes:
            self._launch(handle, "forward's rows", self._graphs.rows.hold(rows))
        if rows:
            self._draw(handle, batch.sampling is None)
        self._driver.call("cuEventRecord", slot.event, self._stream)
        return handle

    def finish(self, handle: _Handle) -> StepResult:
        try:
            self._driver.call("cuEventSynchronize", handle.slot.event)
        except DeviceError as e:
            raise DeviceError(f"the GPU failed in {', '.join(handle.graphs)} or before: {e}") from e
        results, rows = handle.slot.results, handle.rows
        tokens = results["sampled"].take(rows)[:, 0]
        if not handle.log_probs:
            return StepResult(tokens)
        chosen, top_tokens, top = (results[name].take(rows) for name in _LOG_PROBS)
        return StepResult(tokens, chosen[:, 0].view(np.float32), top_tokens, top.view(np.float32))

    def done_but(self, last: int) -> Any | None:
        """The event after which all steps are done but the `last` that were started last; None where they are."""
        step = self._started - 1 - last
        return self._ring[step % _RING].event if step >= 0 and last < _RING else None  # its slot was waited for

    def logits(self, rows: int) -> NDArray[np.float32]:
        """f32[rows, V] of the step finished last; no other may have been started since. For tests and benches."""
        source = self._outputs["logits"]
        logits = np.empty((rows, source.width), np.float32)
        self._driver.call("cuMemcpyDtoH", logits.ctypes.data, source.address, logits.nbytes)
        return logits

    def _send(self, slot: _Slot, sampling: SampleInputs, rows: int) -> None:
        self._copy_in(slot, *fill_sample(slot.words, self._graphs.sample.hold(rows).layout, sampling))
        if len(sampling.edit_tokens):
            self._edits.send(sampling, self._stream)

    def _draw(self, handle: _Handle, greedy: bool) -> None:
        ladder = self._graphs.greedy if greedy else self._graphs.sample
        self._launch(handle, "greedy" if greedy else "sample", ladder.hold(handle.rows))
        self._copy_out(handle, "sampled")
        if handle.log_probs:
            self._launch(handle, "log_probs", self._graphs.log_probs.hold(handle.rows))
            for name in _LOG_PROBS:
                self._copy_out(handle, name)

    def _launch(self, handle: _Handle, name: str, rung: Rung) -> None:
        handle.graphs.append(f"{name}[{rung.size}]")
        self._driver.call("cuGraphLaunch", rung.graph, self._stream)

    def _copy_in(self, slot: _Slot, begin: int, words: int) -> None:
        to, source = self._inputs + 4 * begin, slot.inputs + 4 * begin
        self._word_copies.copy(to, source, words)

    def _copy_out(self, handle: _Handle, name: str) -> None:
        source = self._outputs[name]
        self._word_copies.copy(handle.slot.results[name].address, source.address, source.width * handle.rows)
