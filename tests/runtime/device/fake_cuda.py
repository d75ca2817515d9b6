# ruff: noqa: N802, N815 (the names are the driver's)
"""A stand-in for `cuda.bindings.driver` on host memory: the calls that the runtime makes, with the same signatures.

As lazy as a GPU may be: what is queued on a stream runs when an event behind it is waited for, or the context is
synchronised, and not before; so a block that is reused too early shows. Kernels are Python functions, by entry name,
of their parameters' addresses.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

Kernel = Callable[..., None]
"""Called with the address of each parameter's value."""


class Status(int):
    name = "CUDA_ERROR_FAKE"


OK = Status(0)
INVALID_VALUE = Status(1)
OUT_OF_MEMORY = Status(2)
ILLEGAL_ADDRESS = Status(700)


class _Numbers:
    """An enum whose members need no values."""

    def __getattr__(self, name: str) -> str:
        return name


class _Sized(int):
    pass


class TensorMap:
    def __init__(self, described: tuple[Any, ...]) -> None:
        self.described = described
        self._bytes = ctypes.create_string_buffer(repr(described).encode(), 128)

    def getPtr(self) -> int:
        return ctypes.addressof(self._bytes)


class _Config(SimpleNamespace):
    numAttrs = 0
    attrs: tuple[Any, ...] = ()


class Stream:
    def __init__(self) -> None:
        self.queue: deque[tuple[Any, Callable[[], None]]] = deque()
        self.captured: list[Launch] | None = None

    def run(self, upto: Any = None) -> None:
        while self.queue:
            event, work = self.queue.popleft()
            work()
            if event is upto and event is not None:
                return


class Event:
    stream: Stream | None = None
    records = 0
    """In queues."""
    last: Record | None = None


class Record:
    """What a stream that waits for an event waits for: the event's last record when it was told to."""

    passed = False


class Launch(SimpleNamespace):
    """entry, grid, threads, shared, dependent, params (the bytes of the slots that pointers point to)"""


class FakeCuda:
    """The module. `kernels` by entry name; `calls` counts by function; `graphs` in the order of instantiation."""

    CUdevice_attribute = CUevent_flags = CUstream_flags = CUstreamCaptureMode = CUfunction_attribute = _Numbers()
    CUtensorMapDataType = CUtensorMapInterleave = CUtensorMapSwizzle = CUtensorMapL2promotion = _Numbers()
    CUtensorMapFloatOOBfill = CUlaunchAttributeID = _Numbers()
    CUlaunchConfig = _Config
    cuuint64_t = cuuint32_t = _Sized

    def __init__(self, kernels: dict[str, Kernel], params: dict[str, int], arch: str = "sm_90") -> None:
        """`params`: how many each kernel takes."""
        self.kernels = kernels
        self.params = params
        self.arch = arch
        self.total = 1 << 28
        self.version = 12090
        self.graphs: list[list[Launch]] = []
        self.tensor_maps: list[tuple[Any, ...]] = []
        self.blocks: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.calls: Counter[str] = Counter()
        self.fail_next: dict[str, Status] = {}
        self.streams: list[Stream] = []
        self._lock = threading.RLock()

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("cu") or name in ("cuuint64_t", "cuuint32_t"):
            return value

        def counted(*args: Any) -> tuple[Any, ...]:
            with self._lock:
                self.calls[name] += 1
                status = self.fail_next.pop(name, None)
                if status is not None:
                    return (status, None)
                result = value(*args)
            return (OK,) if result is None else (OK, *result) if isinstance(result, tuple) else (OK, result)

        return counted

    @staticmethod
    def CUlaunchAttribute() -> Any:
        return SimpleNamespace(id=None, value=SimpleNamespace())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Other threads' calls wait."""
        with self._lock:
            yield

    # the GPU

    def cuInit(self, flags: int) -> None: ...

    def cuDriverGetVersion(self) -> int:
        return self.version

    def cuDeviceGet(self, number: int) -> int:
        return number

    def cuDevicePrimaryCtxRetain(self, device: int) -> str:
        return "context"

    def cuCtxSetCurrent(self, context: str) -> None:
        assert context == "context"

    def cuDeviceGetAttribute(self, attribute: str, device: int) -> int:
        return int(self.arch[-1] if attribute.endswith("MINOR") else self.arch[3:-1])

    def cuMemGetInfo(self) -> tuple[int, int]:
        return self.total - sum(map(ctypes.sizeof, self.blocks.values())), self.total

    # memory

    def cuMemAlloc(self, size: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        ctypes.memset(memory, 0xAB, size)
        address = ctypes.addressof(memory)
        self.blocks[address] = memory
        return address

    def cuMemHostAlloc(self, size: int, flags: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        ctypes.memset(memory, 0xCD, size)
        self.pinned[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def cuMemHostRegister(self, address: int, size: int, flags: int) -> None:
        self.pinned[address] = (ctypes.c_uint8 * size).from_address(address)

    def cuMemFreeHost(self, address: int) -> None:
        del self.pinned[address]

    def _inside(self, address: int, size: int, blocks: dict[int, Any]) -> None:
        inside = any(base <= address and address + size <= base + ctypes.sizeof(m) for base, m in blocks.items())
        assert inside, f"{size} bytes at {address:#x} are not in one allocation"

    def cuMemsetD8Async(self, address: int, value: int, size: int, stream: Stream) -> None:
        self._inside(address, size, self.blocks)
        stream.queue.append((None, lambda: ctypes.memset(address, value, size)))

    def cuMemcpyHtoDAsync(self, to: int, source: int, size: int, stream: Stream) -> None:
        self._inside(to, size, self.blocks)
        self._inside(source, size, self.pinned)
        stream.queue.append((None, lambda: ctypes.memmove(to, source, size)))

    def cuMemcpyDtoHAsync(self, to: int, source: int, size: int, stream: Stream) -> None:
        self._inside(source, size, self.blocks)
        self._inside(to, size, self.pinned)
        stream.queue.append((None, lambda: ctypes.memmove(to, source, size)))

    def cuMemcpyHtoD(self, to: int, source: Any, size: int) -> None:
        """At once: what is queued on a stream comes after."""
        self._inside(to, size, self.blocks)
        ctypes.memmove(to, source, size)

    def cuMemcpyDtoH(self, to: int, source: int, size: int) -> None:
        self._inside(source, size, self.blocks)
        ctypes.memmove(to, source, size)

    # order

    def cuStreamCreate(self, flags: Any) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    def cuStreamDestroy(self, stream: Stream) -> None:
        assert not stream.queue
        self.streams.remove(stream)

    def cuStreamSynchronize(self, stream: Stream) -> None:
        stream.run()

    def cuCtxSynchronize(self) -> None:
        for stream in self.streams:
            stream.run()

    def cuEventCreate(self, flags: Any) -> Event:
        return Event()

    def cuEventDestroy(self, event: Event) -> None: ...

    def cuEventRecord(self, event: Event, stream: Stream) -> None:
        event.stream = stream
        event.records += 1
        event.last = record = Record()

        def passed() -> None:
            event.records -= 1
            record.passed = True

        stream.queue.append((event, passed))

    def cuStreamWaitEvent(self, stream: Stream, event: Event, flags: int) -> None:
        ahead, record = event.stream, event.last

        def wait() -> None:
            while record is not None and not record.passed:
                assert ahead is not None
                ahead.run(event)

        stream.queue.append((None, wait))

    def cuEventElapsedTime(self, begin: Event, end: Event) -> float:
        assert begin.records == end.records == 0
        return 2.0

    def cuEventSynchronize(self, event: Event) -> None:
        while event.records:
            assert event.stream is not None
            event.stream.run(event)

    # kernels and graphs

    def cuModuleLoadData(self, image: bytes) -> bytes:
        return image

    def cuModuleGetFunction(self, module: bytes, name: bytes) -> str:
        return name.decode()

    def cuFuncSetAttribute(self, function: str, attribute: str, value: int) -> None: ...

    def cuTensorMapEncodeTiled(self, *args: Any) -> TensorMap:
        self.tensor_maps.append(args)
        return TensorMap(args[2:7])

    def cuStreamBeginCapture(self, stream: Stream, mode: Any) -> None:
        assert stream.captured is None
        stream.captured = []

    def cuLaunchKernelEx(self, config: _Config, function: str, pointers: int, extra: int) -> None:
        count = self.params[function] + 2
        slots = (ctypes.c_uint64 * count).from_address(pointers)
        assert config.hStream.captured is not None
        config.hStream.captured.append(
            Launch(
                entry=function,
                grid=(config.gridDimX, config.gridDimY, config.gridDimZ),
                threads=config.blockDimX,
                shared=config.sharedMemBytes,
                dependent=config.numAttrs == 1,
                params=[ctypes.string_at(slot, 128) for slot in slots],
            )
        )

    def cuLaunchKernel(self, function: str, *args: Any) -> None:
        *sizes, stream, pointers, _ = args
        slots = (ctypes.c_uint64 * self.params[function]).from_address(pointers)
        params = [ctypes.string_at(slot, 8).ljust(128) for slot in slots]
        launch = Launch(entry=function, grid=tuple(sizes[:3]), threads=sizes[3], params=[*params, b"", b""])
        assert stream.captured is None
        stream.queue.append((None, lambda: self._run(launch)))

    def cuStreamEndCapture(self, stream: Stream) -> list[Launch]:
        captured, stream.captured = stream.captured, None
        assert captured is not None
        return captured

    def cuGraphInstantiate(self, graph: list[Launch], flags: int) -> tuple[list[Launch]]:
        self.graphs.append(list(graph))
        return (self.graphs[-1],)

    def cuGraphDestroy(self, graph: list[Launch]) -> None:
        graph.clear()

    def cuGraphUpload(self, graph: list[Launch], stream: Stream) -> None: ...

    def cuGraphLaunch(self, graph: list[Launch], stream: Stream) -> None:
        for launch in graph:
            stream.queue.append((None, lambda launch=launch: self._run(launch)))  # type: ignore[misc]

    def _run(self, launch: Launch) -> None:
        copies = [ctypes.create_string_buffer(param, 128) for param in launch.params]
        self.kernels[launch.entry](*(ctypes.addressof(copy) for copy in copies[:-2]))
