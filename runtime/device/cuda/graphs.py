"""Kernels loaded from cubins, and graphs captured of bound calls."""

from __future__ import annotations

import ctypes
from bisect import bisect_left
from typing import Any, NamedTuple

from oi.runtime.artifact import Artifact
from oi.runtime.cuda_library import CudaLibrary
from oi.runtime.device.cuda.bind import BoundCall, Part
from oi.runtime.device.cuda.driver import Driver
from oi.runtime.device.cuda.inputs import Layout
from oi.runtime.errors import ArtifactError, DeviceError

__all__ = ["Capture", "Kernels", "Ladder", "Rung", "sizes_up_to"]

_MOST_PARAMS = 64
_SLOT = 128
"""Bytes; the largest parameter is a tensor map."""


class Kernels:
    """The functions of an artifact's cubins, each loaded when it is first asked for and kept for good."""

    def __init__(self, driver: Driver, artifact: Artifact, library: CudaLibrary) -> None:
        self._driver = driver
        self._artifact = artifact
        self._library = library
        self._modules: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._load(name)
        return function

    def _load(self, name: str) -> Any:
        kernel = self._library.kernels.get(name)
        if kernel is None or kernel.file not in self._artifact.manifest.files:
            raise ArtifactError(f"the artifact has no kernel {name!r}; compile it again with oi-compile")
        if kernel.file not in self._modules:
            cubin = self._artifact.path(kernel.file).read_bytes()
            self._modules[kernel.file] = self._driver.call("cuModuleLoadData", cubin)
        function = self._driver.call("cuModuleGetFunction", self._modules[kernel.file], kernel.entry.encode())
        most = self._driver.api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._driver.call("cuFuncSetAttribute", function, most, kernel.shared_bytes)
        return function


class Capture:
    """Turns parts into graphs that can be launched. One set of parameter slots serves all: a capture copies them."""

    def __init__(self, driver: Driver, kernels: Kernels, library: CudaLibrary, stream: Any) -> None:
        self._driver = driver
        self._kernels = kernels
        self._library = library
        self._stream = stream
        self._memory = ctypes.create_string_buffer((_MOST_PARAMS + 1) * _SLOT)
        self._slots = -(-ctypes.addressof(self._memory) // _SLOT) * _SLOT
        self._words = (ctypes.c_uint64 * (_MOST_PARAMS * _SLOT // 8)).from_address(self._slots)
        self._pointers = (ctypes.c_uint64 * _MOST_PARAMS)(*(self._slots + i * _SLOT for i in range(_MOST_PARAMS)))
        self._configs: dict[tuple[Any, ...], Any] = {}

    def graph(self, part: Part) -> Any:
        """Captured, instantiated and uploaded. Raises DeviceError, ArtifactError."""
        call, api = self._driver.call, self._driver.api
        for bound in (*part.prologue, *part.calls):
            self._kernels[bound.kernel]  # load: not to be done while capturing
        call("cuStreamBeginCapture", self._stream, api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        for calls in part:
            for number, bound in enumerate(calls):
                self._launch(bound, dependent=number > 0)
        graph = call("cuStreamEndCapture", self._stream)
        executable = call("cuGraphInstantiate", graph, 0)
        call("cuGraphDestroy", graph)
        call("cuGraphUpload", executable, self._stream)
        return executable

    def _launch(self, bound: BoundCall, dependent: bool) -> None:
        """`dependent`: it may begin while the one ahead runs, if it is a kernel that waits itself."""
        kernel = self._library.kernels[bound.kernel]
        self._fill(bound)
        config = self._config(bound.grid, kernel.threads, kernel.shared_bytes, dependent and kernel.pdl)
        function = self._kernels[bound.kernel]
        self._driver.call("cuLaunchKernelEx", config, function, ctypes.addressof(self._pointers), 0)

    def _fill(self, bound: BoundCall) -> None:
        count = len(bound.params)
        if count + 2 > _MOST_PARAMS:
            raise ArtifactError(f"kernel {bound.kernel} takes {count} parameters, this oi passes {_MOST_PARAMS - 2}")
        for number, param in enumerate(bound.params):
            if isinstance(param, int):
                self._words[number * _SLOT // 8] = param  # of an i32 the kernel reads the lower half
            else:
                ctypes.memmove(self._slots + number * _SLOT, param, len(param))
        for number in (count, count + 1):  # Triton's scratch: not used
            self._words[number * _SLOT // 8] = 0

    def _config(self, grid: tuple[int, int, int], threads: int, shared: int, dependent: bool) -> Any:
        key = (grid, threads, shared, dependent)
        if key not in self._configs:
            self._configs[key] = self._make_config(*key)
        return self._configs[key]

    def _make_config(self, grid: tuple[int, int, int], threads: int, shared: int, dependent: bool) -> Any:
        api = self._driver.api
        config = api.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes = shared
        config.hStream = self._stream
        if dependent:
            attribute = api.CUlaunchAttribute()
            attribute.id = api.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            config.attrs = [attribute]
            config.numAttrs = 1
        return config


class Rung(NamedTuple):
    """A bucket: its size, its graph, and where that reads its inputs."""

    size: int
    graph: Any
    layout: Layout


class Ladder:
    """The buckets of a program, rising."""

    def __init__(self, rungs: list[Rung]) -> None:
        self._rungs = rungs
        self._sizes = [rung.size for rung in rungs]

    def hold(self, size: int) -> Rung:
        """The smallest bucket that holds so many. Raises DeviceError."""
        place = bisect_left(self._sizes, size)
        if place == len(self._rungs):
            raise DeviceError(f"a step of {size} is over the {self._sizes[-1]} that was captured")
        return self._rungs[place]


def sizes_up_to(buckets: list[int], most: int) -> list[int]:
    """The buckets that steps of at most `most` need."""
    return buckets[: bisect_left(buckets, most) + 1]
