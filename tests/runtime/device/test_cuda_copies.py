# ruff: noqa: N802 (the names are the driver's)
"""Pages to the host and back on a stand-in for the GPU: order between streams, slots that grow, copies that fail."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from oi.runtime.copies import Copy, Landed
from oi.runtime.device.cuda.copies import CudaCopies, Steps
from oi.runtime.device.cuda.driver import Driver
from oi.runtime.device.cuda.host_pool import HostPool
from oi.runtime.device.cuda.runner import open_on
from oi.runtime.engine import Engine
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.errors import DeviceError
from oi.runtime.messages import SamplingParams, Submit
from tests.runtime.device.cuda_model import PAGE, PAGE_BYTES, VOCAB, fake_cuda, hidden, write_model
from tests.runtime.device.fake_cuda import OUT_OF_MEMORY, FakeCuda, Stream

SMALL = EngineSettings("", "", kv_bytes=14 * PAGE_BYTES, host_kv_bytes=200 * PAGE_BYTES)


@pytest.fixture
def cuda() -> FakeCuda:
    return fake_cuda()


class Gpu:
    """Memory of some pages, a stream of steps, and copies beside it."""

    def __init__(self, cuda: FakeCuda, pages: int = 8, slots: int = 6) -> None:
        self.driver = Driver(cuda)
        self.address = self.driver.allocate(pages * 64, "pages")
        self.pages: NDArray[np.uint8] = np.ctypeslib.as_array(
            (ctypes.c_uint8 * (64 * pages)).from_address(self.address)
        )
        self.pages = self.pages.reshape(pages, 64)
        self.pages[:] = np.random.default_rng().integers(256, size=self.pages.shape)
        self.steps: Stream = self.driver.stream()
        self.done = self.driver.event()
        pool = HostPool(self.driver, slots, 64, block=2 * 64)
        pool.wait()
        self.copies = CudaCopies(
            self.driver, Steps(self.steps, lambda last: None if last else self.done), self.address, pool
        )

    def step(self, page: int, value: int) -> None:
        """Queue what writes a page."""
        self.driver.call("cuMemsetD8Async", self.address + 64 * page, value, 64, self.steps)
        self.driver.call("cuEventRecord", self.done, self.steps)

    def land(self, count: int) -> list[Landed]:
        found: list[Landed] = []
        while len(found) < count:
            self.copies.wait()
            found += self.copies.landed()
        return found


def test_a_save_begins_when_the_step_that_fills_the_page_is_done(cuda: FakeCuda) -> None:
    gpu = Gpu(cuda)
    assert gpu.copies.num_slots == 6
    gpu.step(3, 7)
    gpu.copies.start(save := Copy(True, [(3, 5)], beside=0), ())
    assert gpu.land(1) == [(save, True, 2e-3)]
    gpu.copies.start(Copy(False, [(0, 5)], beside=1), ())
    gpu.land(1)
    assert set(gpu.pages[0].tolist()) == {7}


def test_a_step_that_overwrites_what_is_being_saved_waits(cuda: FakeCuda) -> None:
    gpu = Gpu(cuda)
    before = gpu.pages.copy()
    save = Copy(True, [(page, page) for page in range(6)], beside=1)
    with cuda.paused():  # the thread that drives the stand-in's copies
        gpu.copies.start(save, ())
        gpu.copies.hold_steps([save])
        gpu.step(2, 9)
        cuda.cuStreamSynchronize(gpu.steps)
    assert set(gpu.pages[2].tolist()) == {9}
    gpu.land(1)
    gpu.copies.start(Copy(False, [(2, 2), (7, 4)], beside=1), ())
    gpu.land(1)
    assert (gpu.pages[2] == before[2]).all()
    assert (gpu.pages[7] == before[4]).all()


def test_a_restore_into_a_page_that_is_being_saved_waits_for_the_save(cuda: FakeCuda) -> None:
    gpu = Gpu(cuda)
    before = gpu.pages.copy()
    gpu.copies.start(Copy(True, [(1, 0)], beside=1), ())
    gpu.land(1)
    with cuda.paused():
        gpu.copies.start(save := Copy(True, [(4, 1)], beside=1), ())
        gpu.copies.start(restore := Copy(False, [(4, 0)], beside=1), [save])
        restores = next(s for s in cuda.streams if s.queue and s is not gpu.steps and s is not gpu.copies._save.stream)
        cuda.cuStreamSynchronize(restores)
    assert {landed.copy for landed in gpu.land(2)} == {save, restore}
    assert (gpu.pages[4] == before[1]).all()
    gpu.copies.start(Copy(False, [(5, 1)], beside=1), ())
    gpu.land(1)
    assert (gpu.pages[5] == before[4]).all()


def test_pages_side_by_side_are_one_call_within_a_block(cuda: FakeCuda) -> None:
    gpu = Gpu(cuda)  # of two slots a block
    before = gpu.pages.copy()
    moves = [(4, 4), (0, 0), (3, 3), (1, 1), (6, 2), (2, 5)]
    gpu.copies.start(Copy(True, moves, beside=1), ())
    gpu.land(1)
    assert cuda.calls["cuMemcpyDtoHAsync"] == 5, "only pages 0 and 1 share a block; 3 and 4 do not"
    gpu.copies.start(Copy(False, [(7 - page, slot) for page, slot in moves], beside=1), ())
    gpu.land(1)
    assert all((gpu.pages[7 - page] == before[page]).all() for page, _ in moves)


def test_a_copy_that_the_driver_refuses_lands_as_failed(cuda: FakeCuda) -> None:
    gpu = Gpu(cuda)
    cuda.fail_next["cuMemcpyDtoHAsync"] = OUT_OF_MEMORY
    gpu.copies.start(save := Copy(True, [(1, 0)], beside=1), ())
    ((copy, ok, _),) = gpu.land(1)
    assert (copy, ok) == (save, False)


def test_events_are_used_again(cuda: FakeCuda) -> None:
    gpu = Gpu(cuda)
    for _ in range(20):
        gpu.copies.start(Copy(True, [(1, 0)], beside=1), ())
        gpu.land(1)
    assert cuda.calls["cuEventCreate"] == 1 + 2


def test_memory_that_ends_early_leaves_what_there_is(cuda: FakeCuda, capfd: pytest.CaptureFixture[str]) -> None:
    class Full(FakeCuda):
        def cuMemHostRegister(self, address: int, size: int, flags: int) -> None:
            super().cuMemHostRegister(address, size, flags)
            if self.calls["cuMemHostRegister"] == 2:
                self.fail_next["cuMemHostRegister"] = OUT_OF_MEMORY

    pool = HostPool(Driver(Full({}, {})), 7, 1 << 20, block=2 << 20)
    pool.wait()
    assert pool.num_slots == 4
    assert "stays at 4 MiB, of 7" in capfd.readouterr().err


def test_an_engine_whose_prefixes_are_on_the_host(cuda: FakeCuda, tmp_path: Path) -> None:
    """Prompts of three times the pool, in and out; greedy draws what the context says."""
    runner = open_on(cuda, *write_model(tmp_path), SMALL)
    assert isinstance(runner.copies, CudaCopies)
    runner.copies.pool.wait()
    engine, rng = Engine(runner), np.random.default_rng()
    prompts = [rng.integers(VOCAB, size=17).tolist() for _ in range(10)]
    again: set[int | None] = set()
    for round_ in range(4):
        for number in rng.permutation(10).tolist():
            engine.submit(Submit(100 * round_ + number, prompts[number], SamplingParams(temperature=0.0), 1))
            while engine.has_work:
                for token in engine.step().tokens:
                    assert token.token == hidden(prompts[number])
                    again |= {token.cached} if round_ else set()
                engine.scheduler.check()
    assert again == {16}, "all but the last token was found on one tier or the other"
    stats = engine.stats()
    assert stats.host_hits > 0
    assert stats.restored_bytes >= stats.host_hits // PAGE * PAGE_BYTES
    assert stats.saved_bytes > 0


def test_an_engine_that_has_too_few_pages_for_all(cuda: FakeCuda, tmp_path: Path) -> None:
    """Several at once, some aborted: preempted, restored, and each with the tokens that it has alone."""
    runner = open_on(cuda, *write_model(tmp_path), SMALL)
    assert isinstance(runner.copies, CudaCopies)
    runner.copies.pool.wait()
    engine, rng = Engine(runner), np.random.default_rng()
    prompts = [rng.integers(VOCAB, size=int(rng.integers(3, 20))).tolist() for _ in range(8)]
    asked: dict[int, list[int]] = {}
    got: dict[int, list[int]] = {}
    aborted: set[int] = set()
    for id_ in range(60):
        asked[id_] = prompts[int(rng.integers(8))]
        engine.submit(Submit(id_, asked[id_], SamplingParams(temperature=0.0), int(rng.integers(10, 28))))
        if rng.random() < 0.1:
            aborted.add(id_ - int(rng.integers(4)))
            engine.abort(aborted)
        for _ in range(int(rng.integers(9))):
            if engine.has_work:
                _collect(engine, got)
    while engine.has_work:
        _collect(engine, got)
    for id_, tokens in got.items():
        context = list(asked[id_])
        for token in tokens:
            assert token == hidden(context), id_
            context.append(token)
    assert asked.keys() - got.keys() <= aborted
    stats = engine.stats()
    assert stats.preemptions > 0
    assert stats.restored_bytes > 0


def _collect(engine: Engine, got: dict[int, list[int]]) -> None:
    for token in engine.step().tokens:
        got.setdefault(token.id, []).append(token.token)
    engine.scheduler.check()


def test_a_tier_that_is_too_small_or_too_large_is_refused(cuda: FakeCuda, tmp_path: Path) -> None:
    artifact, checkpoint = write_model(tmp_path)
    for size, message in ((PAGE_BYTES - 1, "raise --kv-offload-host-gib"), (1 << 60, "lower --kv-offload-host-gib")):
        with pytest.raises(DeviceError, match=message):
            open_on(cuda, artifact, checkpoint, EngineSettings("", "", kv_bytes=999, host_kv_bytes=size))
