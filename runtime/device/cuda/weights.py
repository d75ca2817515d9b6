"""Weights from files to the GPU: several readers, each with pinned blocks that are copied while others are filled.

    file ──read──► pinned block ──copy──► the tensor's place in the weights' block

Read, not mapped: mapped pages would count as this process's memory. A tensor's place is its buffer's offset, so
tensors that kernels see as one (q, k, v) come to lie side by side with no step of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from oi.runtime.checkpoint import Checkpoint, StoredTensor
from oi.runtime.device.cuda.driver import Driver, Pinned
from oi.runtime.errors import CheckpointError
from oi.runtime.manifest import Buffer, Manifest

__all__ = ["Piece", "Upload", "plan_pieces"]

_BLOCK = 4 << 20
"""Bytes of a pinned block. All of them are pinned at 0.4 s a GB before the first copy."""
_BLOCKS = 2
"""Of a reader: one is filled while the other is copied."""
_READERS = 8


class Copy(NamedTuple):
    at: int
    """Byte in the piece."""
    to: int
    """Byte in the weights' block."""
    size: int


class Piece(NamedTuple):
    """A stretch of a file that fits into a pinned block, and where its parts go."""

    path: Path
    offset: int
    size: int
    copies: list[Copy]


def plan_pieces(manifest: Manifest, checkpoint: Checkpoint, block: int = _BLOCK) -> list[Piece]:
    """All weights as pieces of at most `block` bytes, in the order of the files. Raises CheckpointError."""
    pieces: list[Piece] = []
    for path, offset, size, to in _spans(manifest, checkpoint, block):
        last = pieces[-1] if pieces else None
        if last and last.path == path and last.offset + last.size == offset and last.size + size <= block:
            pieces[-1] = last._replace(size=last.size + size, copies=[*last.copies, Copy(last.size, to, size)])
        else:
            pieces.append(Piece(path, offset, size, [Copy(0, to, size)]))
    return pieces


def _spans(manifest: Manifest, checkpoint: Checkpoint, block: int) -> Iterator[tuple[Path, int, int, int]]:
    """(file, place in it, bytes, place in the weights' block) of all tensors, none over `block` bytes."""
    buffers = {n: b for p in manifest.programs.values() for n, b in p.buffers.items() if b.kind == "weight"}
    stored = [(checkpoint.stored(tensor), name) for name, tensor in manifest.weights.items()]
    for tensor, name in sorted(stored, key=lambda pair: (pair[0].path, pair[0].offset)):
        buffer = buffers[name]
        _check(name, tensor, buffer)
        for begin in range(0, tensor.nbytes, block):
            size = min(block, tensor.nbytes - begin)
            yield tensor.path, tensor.offset + begin, size, buffer.offset + begin


def _check(name: str, tensor: StoredTensor, buffer: Buffer) -> None:
    if tensor.dtype != buffer.dtype or list(tensor.shape) != buffer.shape:
        raise CheckpointError(
            f"weight {name!r} is {tensor.dtype}{list(tensor.shape)} in the checkpoint, {buffer.dtype}{buffer.shape} "
            f"in the artifact; is it the model that was compiled? (a GPU takes bf16 weights: convert others, or choose "
            "--target cpu)"
        )


class Upload:
    """Runs in the background from when it is made; `wait` for it before the weights are used. Left early, it stops."""

    def __init__(self, driver: Driver, pieces: list[Piece], base: int) -> None:
        """`base`: address of the weights' block."""
        self._driver = driver
        self._base = base
        self._files = {path: os.open(path, os.O_RDONLY) for path in {piece.path for piece in pieces}}
        self._stopped = False
        self._left = iter(pieces)  # shared by the readers: a list's iterator gives each piece to one of them
        readers = min(_READERS, len(os.sched_getaffinity(0)), len(pieces))
        self._pool = ThreadPoolExecutor(max(readers, 1), "weights")
        self._readers: list[Future[None]] = [self._pool.submit(self._read) for _ in range(readers)]

    def wait(self) -> None:
        """All weights are there and all staging is freed. Raises CheckpointError, DeviceError."""
        for reader in self._readers:
            reader.result()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._pool.shutdown()
        for file in self._files.values():
            os.close(file)

    def _read(self) -> None:
        driver = self._driver
        driver.use()
        stream = driver.stream()
        with ExitStack() as staging:
            ring = [(Pinned(driver, _BLOCK), driver.event()) for _ in range(_BLOCKS)]
            for block, event in ring:
                staging.callback(block.free)
                staging.callback(driver.call, "cuEventDestroy", event)
            staging.callback(driver.call, "cuStreamDestroy", stream)
            staging.callback(driver.call, "cuStreamSynchronize", stream)
            for turn, piece in enumerate(self._left):
                if self._stopped:
                    return
                block, event = ring[turn % _BLOCKS]
                driver.call("cuEventSynchronize", event)
                _read_piece(self._files[piece.path], piece, block)
                for copy in piece.copies:
                    source = block.address + copy.at
                    driver.call("cuMemcpyHtoDAsync", self._base + copy.to, source, copy.size, stream)
                driver.call("cuEventRecord", event, stream)


def _read_piece(file: int, piece: Piece, block: Pinned) -> None:
    memory = block.memory[: piece.size].data
    done = 0
    while done < piece.size:
        try:
            count = os.preadv(file, [memory[done:]], piece.offset + done)
        except OSError as e:
            raise CheckpointError(f"{piece.path} cannot be read: {e.strerror}") from e
        if not count:
            raise CheckpointError(f"{piece.path} became shorter while it was read; download it again")
        done += count
