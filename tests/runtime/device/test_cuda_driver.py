"""Whatever is wrong with a GPU or its driver is said with its mend."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from oi.runtime.device.cuda.driver import Driver, Pinned, load_bindings
from oi.runtime.errors import DeviceError
from oi.runtime.host_gpu import host_gpu
from tests.runtime.device.fake_cuda import FakeCuda, Status


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(DeviceError, match="pip install"):
        load_bindings()


@pytest.mark.skipif(host_gpu() is not None, reason="there is a GPU")
def test_no_driver() -> None:
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    with pytest.raises(DeviceError, match="install the NVIDIA driver"):
        Driver(load_bindings())


@pytest.mark.parametrize(
    ("call", "status", "mend"),
    [
        ("cuInit", 100, "CUDA_VISIBLE_DEVICES"),
        ("cuInit", 803, "reboot"),
        ("cuDevicePrimaryCtxRetain", 2, "memory is full"),
        ("cuDevicePrimaryCtxRetain", 46, "another process"),
        ("cuCtxSetCurrent", 12345, "12345"),
    ],
)
def test_a_driver_that_refuses(call: str, status: int, mend: str) -> None:
    cuda = FakeCuda({}, {})
    cuda.fail_next[call] = Status(status)
    with pytest.raises(DeviceError, match=mend):
        Driver(cuda)


def test_an_old_driver() -> None:
    cuda = FakeCuda({}, {})
    cuda.version = 11080
    with pytest.raises(DeviceError, match=r"update the NVIDIA driver to one of CUDA 12\.3"):
        Driver(cuda)


def test_a_driver_without_a_function() -> None:
    def missing(flags: int) -> None:
        raise RuntimeError('Function "cuInit" not found')

    with pytest.raises(DeviceError, match="update the NVIDIA driver"):
        Driver(SimpleNamespace(cuInit=missing))


def test_pinned_memory() -> None:
    cuda = FakeCuda({}, {})
    pinned = Pinned(Driver(cuda), 100)
    pinned.memory[:] = 7
    assert bytes(cuda.pinned[pinned.address]) == b"\7" * 100
    pinned.free()
    assert not cuda.pinned
