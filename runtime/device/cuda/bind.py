"""From the manifest's launches and the library's recipes to calls whose parameters are numbers.

A bound call knows nothing of buffers or buckets any more: two that are equal do the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from oi.runtime.cuda_library import Call, CudaLibrary, Descriptor, Int, Io, Operand, Recipe, Scratch
from oi.runtime.device.cuda.driver import Driver
from oi.runtime.errors import ArtifactError
from oi.runtime.manifest import Launch, Manifest

__all__ = ["Addresses", "Binder", "BoundCall", "Part"]

_MEND = "compile the artifact again with oi-compile"


class BoundCall(NamedTuple):
    kernel: str
    grid: tuple[int, int, int]
    params: tuple[int | bytes, ...]
    """Integers of up to 64 bits, pointers among them, and tensor maps of 128 bytes."""


class _Template(NamedTuple):
    """What a call's parameters are for all launches, and the places of those that are each launch's own."""

    params: list[int | bytes]
    operands: list[tuple[int, int, int]]
    """(place, the launch's argument, offset in bytes)"""
    descriptors: list[tuple[int, Descriptor]]


class Part(NamedTuple):
    """The calls of a graph. The prologue's calls are all different."""

    prologue: list[BoundCall]
    calls: list[BoundCall]


@dataclass(frozen=True)
class Addresses:
    """Where things are on the GPU."""

    weights: int
    constants: int
    arena: int
    kv: int
    outputs: Mapping[str, int]
    """Of io buffers that no step fills in, by name."""
    scratch: Mapping[str, int]


class Binder:
    """Binds the programs of one artifact. Raises ArtifactError where launches and recipes don't fit together."""

    def __init__(
        self, driver: Driver, manifest: Manifest, library: CudaLibrary, addresses: Addresses, pages: int
    ) -> None:
        self._driver = driver
        self._manifest = manifest
        self._library = library
        self._addresses = addresses
        self._pages = pages
        self._fixed = {program: self._fixed_addresses(program) for program in manifest.programs}
        self._maps: dict[tuple[int, tuple[int, ...], tuple[int, ...], int], bytes] = {}

    def part(self, program: str, dim: str, rows: int, inputs: Mapping[str, int]) -> Part:
        """All launches of the program over `dim`, for a bucket of `rows`. `inputs`: addresses of its step inputs."""
        named = {**self._addresses.outputs, **inputs}
        values = {**named, **self._fixed[program]}
        templates: dict[int, _Template] = {}
        prologue: dict[BoundCall, None] = {}
        calls: list[BoundCall] = []
        for launch in self._manifest.programs[program].launches:
            if launch.rows != dim:
                continue
            recipe = self._recipe(launch, rows)
            try:
                args = [a if isinstance(a, int) else values[a] for a in launch.args]
                prologue.update(dict.fromkeys(self._bind(call, args, named, templates) for call in recipe.prologue))
                calls.extend(self._bind(call, args, named, templates) for call in recipe.calls)
            except (KeyError, IndexError) as e:
                raise ArtifactError(f"{program}: {launch.op} for {dim} = {rows} names {e}, unknown; {_MEND}") from e
        return Part(list(prologue), calls)

    def _fixed_addresses(self, program: str) -> dict[str, int]:
        """Of the program's buffers that no step fills in."""
        at = self._addresses
        bases = {"weight": at.weights, "constant": at.constants, "arena": at.arena, "state": at.kv}
        buffers = self._manifest.programs[program].buffers
        return {name: bases[b.kind] + b.offset for name, b in buffers.items() if b.kind != "io"}

    def _recipe(self, launch: Launch, rows: int) -> Recipe:
        variant = next((v for v in launch.variants if v.max_rows is None or rows <= v.max_rows), None)
        if variant is None or variant.kernel not in self._library.recipes:
            raise ArtifactError(f"the artifact has no {launch.op} for {launch.rows} = {rows}; {_MEND}")
        return self._library.recipes[variant.kernel]

    def _bind(
        self, call: Call, args: list[int], named: Mapping[str, int], templates: dict[int, _Template]
    ) -> BoundCall:
        """`templates`: of this part, by the call's id; all layers have the same calls."""
        template = templates.get(id(call))
        if template is None:
            template = templates[id(call)] = self._template(call, named)
        params = template.params.copy()
        for place, arg, offset in template.operands:
            params[place] = args[arg] + offset
        for place, descriptor in template.descriptors:
            params[place] = self._tensor_map(args[descriptor.arg], descriptor)
        return BoundCall(call.kernel, call.grid, tuple(params))

    def _template(self, call: Call, named: Mapping[str, int]) -> _Template:
        template = _Template([0] * len(call.params), [], [])
        for place, param in enumerate(call.params):
            match param:
                case Operand(arg, offset):
                    template.operands.append((place, arg, offset))
                case Descriptor():
                    template.descriptors.append((place, param))
                case Int(value):
                    template.params[place] = value
                case Io(name):
                    template.params[place] = named[name]
                case Scratch(name, offset):
                    template.params[place] = self._addresses.scratch[name] + offset
        return template

    def _tensor_map(self, address: int, descriptor: Descriptor) -> bytes:
        shape = list(descriptor.shape)
        if descriptor.pages:
            shape[0] *= self._pages
        key = (address, tuple(shape), tuple(descriptor.box), descriptor.swizzle)
        if key not in self._maps:
            self._maps[key] = encode(self._driver, *key)
        return self._maps[key]


def encode(driver: Driver, address: int, shape: tuple[int, ...], box: tuple[int, ...], swizzle: int) -> bytes:
    """The 128 bytes of a tensor map over a dense row-major bf16 array; sizes are outermost first."""
    api = driver.api
    rank = len(shape)
    strides = [2 * stride for stride in _inner_products(shape)]
    tensor_map = driver.call(
        "cuTensorMapEncodeTiled",
        api.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        rank,
        address,
        [api.cuuint64_t(size) for size in reversed(shape)],
        [api.cuuint64_t(stride) for stride in strides],
        [api.cuuint32_t(size) for size in reversed(box)],
        [api.cuuint32_t(1)] * rank,
        api.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        getattr(api.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{f'{swizzle}B' if swizzle else 'NONE'}"),
        api.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        api.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return ctypes.string_at(tensor_map.getPtr(), 128)


def _inner_products(shape: tuple[int, ...]) -> Iterator[int]:
    """Elements of a row, of a plane of rows, …: the strides of all dims but the innermost, inner ones first."""
    product = 1
    for size in reversed(shape[1:]):
        product *= size
        yield product
