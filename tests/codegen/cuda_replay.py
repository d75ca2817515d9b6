"""Go through an artifact for CUDA as the runtime does, on paper: every launch of every bucket, every parameter.

`replay` binds recipes to the sizes of buffers instead of their addresses and checks what would else fail on a GPU, or
worse, not fail there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import msgspec

from oi.runtime.artifact import open_artifact
from oi.runtime.cuda_library import Call, CudaLibrary, Descriptor, Int, Io, Operand, Param, Recipe, Scratch
from oi.runtime.manifest import Buffer, Launch, Manifest
from tests.codegen.cubin import launch_threads, parameter_bytes

__all__ = ["Replayed", "replay"]

ITEMSIZE = {"bf16": 2, "f32": 4, "i32": 4}


@dataclass
class Replayed:
    """What was gone through."""

    launches: int = 0
    calls: int = 0


def replay(folder: Path, changed: CudaLibrary | None = None) -> Replayed:
    """Assert that the artifact is sound, or would be with a changed library."""
    manifest = open_artifact(folder).manifest
    library = changed or msgspec.json.decode((folder / manifest.library).read_bytes(), type=CudaLibrary)
    signatures = _signatures(folder, library)
    done = Replayed()
    for program, dim, rows in _parts(manifest, library):
        sizes = {"T": rows, "S": manifest.limits.max_sequences, "R": rows, "E": manifest.limits.max_edits}
        for launch in manifest.programs[program].launches:
            if launch.rows == dim:
                recipe = library.recipes[_variant(launch, rows)]
                done.launches += 1
                done.calls += len(recipe.calls)
                for call in (*recipe.prologue, *recipe.calls):
                    assert [_parameter_bytes(param, launch) for param in call.params] == signatures[call.kernel]
                _check_recipe(recipe, launch, manifest.programs[program].buffers, sizes, manifest, library)
    named = {v.kernel for p in manifest.programs.values() for launch in p.launches for v in launch.variants}
    assert named == library.recipes.keys()
    called = {call.kernel for recipe in library.recipes.values() for call in (*recipe.prologue, *recipe.calls)}
    assert called | {library.word_copy.kernel} == library.kernels.keys()
    assert signatures[library.word_copy.kernel] == [8, 8, 4], "to, source, words"
    return done


def _parts(manifest: Manifest, library: CudaLibrary) -> Iterator[tuple[str, str, int]]:
    """(program, dim, size) of every graph that is captured."""
    buckets, limits = library.buckets, manifest.limits
    assert buckets.decode_rows[-1] == buckets.rows[-1] == limits.max_sequences
    assert buckets.tokens[-1] == limits.max_tokens
    for sizes in (buckets.decode_rows, buckets.tokens, buckets.rows):
        assert sizes == sorted(set(sizes))
    yield from (("decode", "T", rows) for rows in buckets.decode_rows)
    yield from (("forward", "T", rows) for rows in buckets.tokens)
    for program in ("forward", "greedy", "sample", "log_probs"):
        yield from ((program, "R", rows) for rows in buckets.rows)
    assert {launch.rows for launch in manifest.programs["decode"].launches} == {"T"}
    dims = [launch.rows for launch in manifest.programs["forward"].launches]
    assert dims == sorted(dims, reverse=True), "launches over R come last"
    assert set(dims) == {"T", "R"}


def _variant(launch: Launch, rows: int) -> str:
    """That is made for exactly so many rows, as its name ends in them."""
    kernel = next(v.kernel for v in launch.variants if v.max_rows is None or rows <= v.max_rows)
    assert kernel.endswith(f"_{rows}")
    return kernel


def _signatures(folder: Path, library: CudaLibrary) -> dict[str, list[int]]:
    """The bytes of each kernel's parameters, as its cubin has them."""
    signatures = {}
    for name, kernel in library.kernels.items():
        cubin = folder / kernel.file
        *signatures[name], scratch, profile = parameter_bytes(cubin, kernel.entry)
        assert (scratch, profile) == (8, 8)
        assert launch_threads(cubin, kernel.entry) == kernel.threads
    return signatures


def _parameter_bytes(param: Param, launch: Launch) -> int:
    match param:
        case Int(bits=bits):
            return bits // 8
        case Descriptor():
            return 128
        case Operand(arg):
            return 4 if isinstance(launch.args[arg], int) else 8
        case _:
            return 8


def _check_recipe(
    recipe: Recipe,
    launch: Launch,
    buffers: dict[str, Buffer],
    sizes: dict[str, int],
    manifest: Manifest,
    library: CudaLibrary,
) -> None:
    io = {n for p in manifest.programs.values() for n, b in p.buffers.items() if b.kind == "io"} | {"table_width"}
    used: set[int] = set()
    for call in (*recipe.prologue, *recipe.calls):
        assert all(0 < n <= most for n, most in zip(call.grid, (2**31 - 1, 65535, 65535), strict=True))
        for param in call.params:
            match param:
                case Operand(arg, offset):
                    assert 0 <= arg < len(launch.args)
                    assert offset == 0
                    used |= {arg, *_neighbours(arg, launch, buffers, sizes)}
                case Io(name):
                    assert name in io
                case Scratch(name, offset):
                    assert 0 <= offset < library.scratch[name]
                case Descriptor():
                    used |= _check_descriptor(param, launch, buffers, sizes, manifest)
        for name, needed in _scratch_needs(call, library):
            assert needed <= library.scratch[name], (name, call)
    unread = {4} if launch.op == "qkv_attention" else set()  # slots: the kernel finds them in the page table
    assert used == set(range(len(launch.args))) - unread, f"{launch.op} leaves arguments unread"


def _check_descriptor(
    param: Descriptor, launch: Launch, buffers: dict[str, Buffer], sizes: dict[str, int], manifest: Manifest
) -> set[int]:
    """It covers its argument exactly, or the packed weights that begin there; return the arguments it covers."""
    assert len(param.shape) == len(param.box) <= 5
    assert all(1 <= size <= 256 for size in param.box)
    assert 2 * param.box[-1] <= (param.swizzle or 256)
    assert 2 * param.shape[-1] % 16 == 0
    name = launch.args[param.arg]
    assert isinstance(name, str)
    assert buffers[name].dtype == "bf16"
    covered = 2 * prod(param.shape)
    if param.pages:
        assert buffers[name].kind == "state"
        assert covered == manifest.kv.page_bytes
        return {param.arg}
    args = {param.arg, *_neighbours(param.arg, launch, buffers, sizes)}
    assert covered == sum(_bytes(buffers[str(launch.args[arg])], sizes) for arg in args)
    return args


def _neighbours(arg: int, launch: Launch, buffers: dict[str, Buffer], sizes: dict[str, int]) -> list[int]:
    """The arguments that are read with a weight as one array: the launch's other weights, which must follow it."""
    first = buffers.get(str(launch.args[arg]))
    if launch.op not in ("linear_concat", "swiglu_linear") or first is None or first.kind != "weight":
        return []
    weights = [i for i, name in enumerate(launch.args) if str(name) in buffers and buffers[str(name)].kind == "weight"]
    end = first.offset
    for i in weights:
        buffer = buffers[str(launch.args[i])]
        assert buffer.offset == end
        end += _bytes(buffer, sizes)
    return weights[1:]


def _bytes(buffer: Buffer, sizes: dict[str, int]) -> int:
    return ITEMSIZE[buffer.dtype] * prod(sizes[d] if isinstance(d, str) else d for d in buffer.shape)


def _scratch_needs(call: Call, library: CudaLibrary) -> Iterator[tuple[str, int]]:
    """What the kernels' own docstrings say that they use, from their constants as the symbol names them."""
    c = {key: int(value) for key, value in re.findall(r"-([A-Z_]+)(\d+)(?=-|$)", call.kernel)}
    entry, programs = library.kernels[call.kernel].entry, prod(call.grid)
    ints = [param.value for param in call.params if isinstance(param, Int)]
    c |= {f"N{i}": int(v) for i, v in re.findall(r"-N([01])(\d+)(?=-)", call.kernel)}
    if entry == "gemm_skinny":
        parts = 2 if c["SWIGLU"] else 1
        yield "gemm.tickets", 4 * -(-c["N"] // c["BLOCK_N"])
        if c["SHARERS"] > 1:
            yield "gemm.partial", 4 * c["PROGRAMS"] * 2 * parts * c["BLOCK_M"] * c["BLOCK_N"]
    elif entry == "gemm_even":
        parts = 2 if c["SWIGLU"] else 1
        yield "gemm.tickets", 4 * c["REST"]
        yield "gemm.partial", 4 * c["REST"] * c["SPLITS"] * parts * c["BLOCK_M"] * c["BLOCK_N"]
    elif entry == "gemm_portable" and c["SPLITS"] > 1:
        parts = 2 if c["SWIGLU"] else 1
        yield "gemm.tickets", 4 * programs // c["SPLITS"]
        yield "gemm.partial", 4 * programs * parts * c["BLOCK_M"] * c["BLOCK_N"]
    elif entry == "attention_decode_plan":
        sequences, share_of = ints
        yield "attention_decode.plan", 4 * (4 + sequences + share_of)
    elif entry == "attention_prefill_plan":
        yield "attention_prefill.plan", 4 * (2 + ints[-1])
    elif "attention_decode" in entry:
        group, dim = c["Q"] // c["K"], c.get("D", 128)
        yield "attention_decode.parts", 4 * 2 * programs * group * dim
        yield "attention_decode.arrivals", 4 * ints[-1] * c["K"]
    elif entry.startswith("attention_prefill"):
        rows = 64 if entry in ("attention_prefill_few_hopper", "attention_prefill_add") else 128
        yield "attention_prefill.parts", 4 * 4 * programs * rows * c.get("D", 128)
        yield "attention_prefill.stats", 4 * 4 * programs * 2 * rows
    elif entry == "greedy_chunks":
        yield "greedy.best", 8 * programs
    elif entry in ("sample_chunks", "log_probs_chunks"):
        op = entry.removesuffix("_chunks")
        yield f"{op}.best", 8 * call.grid[0] * c["C"]
        yield f"{op}.sums", 4 * call.grid[0] * c["C"]
    elif entry == "sample":
        yield "sample.selected", 4 * programs * c["C_BLOCK"]
        yield "sample.candidates", 4 * programs * c["CANDIDATES"]
        yield "sample.candidate_tokens", 4 * programs * c["CANDIDATES"]
    elif entry == "log_probs":
        yield "log_probs.selected", 4 * programs * c["C_BLOCK"]
        yield "log_probs.candidates", 8 * programs * c["CANDIDATES"]
