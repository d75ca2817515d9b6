"""What the engine asks of a device: steps that are started, and finished in the same order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oi.runtime.batch import Batch
from oi.runtime.copies import Copies
from oi.runtime.geometry import Geometry

__all__ = ["Handle", "Runner", "StepResult"]

Handle = Any
"""A step that was started; only the runner that gave it knows what it is."""


@dataclass(frozen=True)
class StepResult:
    """By sampled row, in the batch's order. The last three are None unless the batch wants log-probabilities."""

    tokens: NDArray[np.int32]
    """[R]; R may be 0."""
    logprobs: NDArray[np.float32] | None = None
    """[R], of the tokens drawn."""
    top_tokens: NDArray[np.int32] | None = None
    """[R, 20], the most likely first."""
    top_logprobs: NDArray[np.float32] | None = None
    """[R, 20]"""


class Runner(Protocol):
    """Computes all tokens of a batch and draws one for each of its rows (there may be none).

    The device does the steps' work strictly in the order in which they were started: a page that step N+1 writes may
    be one that step N still reads, and a page that it reads may be one that step N writes (docs/architecture.md,
    "Steps in flight").
    """

    @property
    def geometry(self) -> Geometry: ...

    @property
    def copies(self) -> Copies | None:
        """To and from a host tier, if there is one."""

    @property
    def overlaps(self) -> bool:
        """Whether `start` returns before the step is computed.

        If so, one more step may be started before it is finished, with tokens that are still to be drawn
        (Batch.tokens). If not, every step is finished before the next is started.
        """

    def start(self, batch: Batch) -> Handle:
        """Begin a step. Nothing of `batch` is read after it returns. Raises DeviceError."""

    def finish(self, handle: Handle) -> StepResult:
        """Wait for a step; called once for every start, in order. Raises DeviceError."""
