"""A model small enough to compute by hand, as an artifact for the fake GPU, and what it must answer.

K/V of a position is its token. The hidden value of a position p is h = Σ_{i ≤ p} (i + 1) · token_i mod 251; logits
are h · (v + 1); greedy draws h, and a sampled row draws h, its temperature, its uniform and its edits summed.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from oi.runtime.artifact import Artifact
from oi.runtime.cuda_library import (
    Buckets,
    Call,
    CudaLibrary,
    Int,
    Io,
    Kernel,
    Operand,
    Param,
    Recipe,
    Scratch,
    WordCopy,
)
from oi.runtime.manifest import (
    FORMAT,
    Buffer,
    CudaMachine,
    File,
    KvCache,
    Launch,
    Limits,
    Manifest,
    Model,
    Program,
    Variant,
)
from tests.runtime.device.fake_cuda import FakeCuda

PAGE, VOCAB, TOP, PRIME = 4, 3, 20, 251
PAGE_BYTES = 2 * 2 * PAGE
"""The second half, where V would be, is not used."""
LIMITS = Limits(max_tokens=16, max_sequences=4, max_edits=8)
BUCKETS = Buckets(decode_rows=[1, 2, 4], tokens=[4, 16], rows=[1, 4])


def hidden(tokens: list[int]) -> int:
    """Of the last of these tokens of a sequence."""
    return sum((i + 1) * token for i, token in enumerate(tokens)) % PRIME


def _i32(address: int, count: int = 1) -> NDArray[np.int32]:
    return np.ctypeslib.as_array((ctypes.c_int32 * count).from_address(address))


def _u16(address: int, count: int) -> NDArray[np.uint16]:
    return np.ctypeslib.as_array((ctypes.c_uint16 * count).from_address(address))


def _f32(address: int, count: int = 1) -> NDArray[np.float32]:
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


def _pointer(param: int) -> int:
    return ctypes.c_uint64.from_address(param).value


def _prologue(widths: int, table_width: int) -> None:
    """Kernels may use what the prologue wrote: the width."""
    _i32(_pointer(widths))[0] = _i32(_pointer(table_width))[0]


def _write(tokens: int, positions: int, slots: int, table: int, kv: int, sampled: int, T: int) -> None:
    count = _i32(T)[0]
    given, at, to = (_i32(_pointer(p), count) for p in (tokens, positions, slots))
    for t in range(count):
        token = given[t] if given[t] >= 0 else _i32(_pointer(sampled), -given[t])[-1]
        if to[t] >= 0:
            # weights[i] is i + 1: the position's factor
            factor = int(_u16(_pointer(table), at[t] + 1)[at[t]])
            page, offset = divmod(int(to[t]), PAGE)
            _u16(_pointer(kv) + PAGE_BYTES * page + 2 * offset, 1)[0] = int(token) * factor % PRIME


def _attend(starts: int, lens: int, contexts: int, table: int, kv: int, widths: int, out: int, S: int) -> None:
    count = _i32(S)[0]
    width = int(_i32(_pointer(widths))[0])
    for s in range(count):
        start, length, context = (int(_i32(_pointer(p), count)[s]) for p in (starts, lens, contexts))
        if not length:
            continue
        pages = _i32(_pointer(table) + 4 * s * width, -(-context // PAGE))
        values = np.concatenate([_u16(_pointer(kv) + PAGE_BYTES * int(page), PAGE) for page in pages])[:context]
        sums = np.cumsum(values.astype(int)) % PRIME
        _i32(_pointer(out), start + length)[start:] = sums[context - length :]


def _select(hidden_: int, rows: int, logits: int, R: int) -> None:
    count = _i32(R)[0]
    for r, row in enumerate(_i32(_pointer(rows), count)):
        value = _i32(_pointer(hidden_), row + 1)[row]
        _f32(_pointer(logits) + 4 * VOCAB * r, VOCAB)[:] = value * np.arange(1, VOCAB + 1)


def _all_rows(hidden_: int, logits: int, T: int) -> None:
    count = _i32(T)[0]
    values = _i32(_pointer(hidden_), count)
    _f32(_pointer(logits), count * VOCAB)[:] = np.outer(values, np.arange(1, VOCAB + 1)).reshape(-1)


def _greedy(logits: int, sampled: int, R: int) -> None:
    count = _i32(R)[0]
    _i32(_pointer(sampled), count)[:] = _f32(_pointer(logits), count * VOCAB)[::VOCAB]


def _sample(logits: int, starts: int, lens: int, tokens: int, scale: int, add: int, temperature: int, top_k: int,
            top_p: int, min_p: int, uniform: int, sampled: int, R: int) -> None:  # fmt: skip
    count = _i32(R)[0]
    for r in range(count):
        start, size = _i32(_pointer(starts), count)[r], _i32(_pointer(lens), count)[r]
        value = _f32(_pointer(logits), count * VOCAB)[r * VOCAB] + _f32(_pointer(temperature), count)[r]
        value += _f32(_pointer(uniform), count)[r] + _i32(_pointer(top_k), count)[r]
        value += _f32(_pointer(top_p), count)[r] + _f32(_pointer(min_p), count)[r]
        if size:
            value += _i32(_pointer(tokens), start + size)[start:].sum()
            value += _f32(_pointer(scale), start + size)[start:].sum() + _f32(_pointer(add), start + size)[start:].sum()
        _i32(_pointer(sampled), count)[r] = int(value) % PRIME


def _log_probs(logits: int, sampled: int, chosen: int, tokens: int, values: int, R: int) -> None:
    count = _i32(R)[0]
    _f32(_pointer(chosen), count)[:] = -_i32(_pointer(sampled), count)
    _i32(_pointer(tokens), count * TOP)[:] = np.arange(count * TOP)
    _f32(_pointer(values), count * TOP)[:] = np.repeat(_f32(_pointer(logits), count * VOCAB)[::VOCAB], TOP)


def _copy_words(to: int, source: int, words: int) -> None:
    ctypes.memmove(_pointer(to), _pointer(source), 4 * _i32(words)[0])


KERNELS = {
    "copy_words": _copy_words,
    "prologue": _prologue,
    "write": _write,
    "attend": _attend,
    "select": _select,
    "all_rows": _all_rows,
    "greedy": _greedy,
    "sample": _sample,
    "log_probs": _log_probs,
}


def fake_cuda() -> FakeCuda:
    return FakeCuda(KERNELS, {name: f.__code__.co_argcount for name, f in KERNELS.items()})


_INT32 = "i32"


def _operands(count: int) -> list[Param]:
    return [Operand(i) for i in range(count)]


def _recipe(op: str, rows: int, sequences: int) -> Recipe:
    """The calls of an op; operands are in the order of the kernels above."""
    prologue = [Call("prologue", (1, 1, 1), [Scratch("widths"), Io("table_width")])]
    match op:
        case "write":
            return Recipe([Call(op, (rows, 1, 1), [*_operands(5), Io("sampled"), Int(rows)])])
        case "attend":
            params = [*_operands(5), Scratch("widths"), Operand(5), Int(sequences)]
            return Recipe([Call(op, (sequences, 1, 1), params)], prologue)
    counts = {"select": 3, "all_rows": 2, "greedy": 2, "sample": 12, "log_probs": 5}
    return Recipe([Call(op, (rows, 1, 1), [*_operands(counts[op]), Int(rows)])])


_STEP_ARGS = {
    "write": ["tokens", "positions", "slots", "factors", "kv"],
    "attend": ["query_starts", "query_lens", "context_lens", "page_table", "kv", "hidden"],
    "select": ["hidden", "rows", "logits"],
    "all_rows": ["hidden", "logits"],
    "greedy": ["logits", "sampled"],
    "sample": ["logits", "edit_starts", "edit_lens", "edit_tokens", "edit_scale", "edit_add", "temperature", "top_k",
               "top_p", "min_p", "uniform", "sampled"],
    "log_probs": ["logits", "sampled", "sampled_logprob", "top_tokens", "top_logprobs"],
}  # fmt: skip

_SHAPES: dict[str, tuple[str, str, list[int | str]]] = {
    **{name: ("io", "i32", ["T"]) for name in ("tokens", "positions", "slots")},
    **{name: ("io", "i32", ["S"]) for name in ("query_starts", "query_lens", "context_lens")},
    "page_table": ("io", "i32", ["S", "P"]),
    "rows": ("io", "i32", ["R"]),
    "logits": ("io", "f32", ["R", VOCAB]),
    "sampled": ("io", "i32", ["R"]),
    "sampled_logprob": ("io", "f32", ["R"]),
    "top_tokens": ("io", "i32", ["R", TOP]),
    "top_logprobs": ("io", "f32", ["R", TOP]),
    **{name: ("io", "i32", ["R"]) for name in ("edit_starts", "edit_lens", "top_k")},
    **{name: ("io", "f32", ["R"]) for name in ("temperature", "top_p", "min_p", "uniform")},
    **{name: ("io", "f32", ["E"]) for name in ("edit_scale", "edit_add")},
    "edit_tokens": ("io", "i32", ["E"]),
    "kv": ("state", "bf16", ["N", 1, 2, 1, PAGE, 1]),
    "hidden": ("arena", "i32", ["T"]),
    "factors": ("weight", "bf16", [64]),
}


def _program(ops: dict[str, str], sizes: dict[str, list[int]], decode: bool = False) -> Program:
    names = {name for op in ops for name in _STEP_ARGS[op]}
    rename = {"S": "T", "R": "T"} if decode else {}
    buffers = {}
    for name in sorted(names):
        kind, dtype, shape = _SHAPES[name]
        shape = [rename.get(d, d) if isinstance(d, str) else d for d in shape]
        offset = {"hidden": 64, "factors": 128}.get(name, 0)
        buffers[name] = Buffer(kind, dtype, shape, offset)  # type: ignore[arg-type]
    which = "decode" if decode else ""
    launches = [
        Launch(op, dim, [Variant(f"{op}{which}_{size}", size) for size in sizes[dim]], [*_STEP_ARGS[op]])
        for op, dim in ops.items()
    ]
    return Program(buffers, launches)


def write_model(folder: Path, arch: str = "sm_90") -> tuple[Artifact, Path]:
    """The artifact, and the checkpoint's folder."""
    sizes = {"T": BUCKETS.tokens, "R": BUCKETS.rows}
    step_recipes = {
        **{f"{op}_{t}": _recipe(op, t, LIMITS.max_sequences) for op in ("write", "attend") for t in BUCKETS.tokens},
        **{f"{op}decode_{t}": _recipe(op, t, t) for op in ("write", "attend", "all_rows") for t in BUCKETS.decode_rows},
        **{f"{op}_{r}": _recipe(op, r, 0) for op in ("select", "greedy", "sample", "log_probs") for r in BUCKETS.rows},
    }
    kernels = {name: Kernel("k.cubin", name, 128, 1024, pdl=True) for name in KERNELS}
    library = CudaLibrary(BUCKETS, WordCopy("copy_words", 8), kernels, step_recipes, {"widths": 4})
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    _write_checkpoint(checkpoint)
    manifest = Manifest(
        format=FORMAT,
        built_by={},
        target=CudaMachine(arch),
        model=Model("fake", "", VOCAB, 1, 48, 1000),
        kv=KvCache(1, 1, 1, PAGE, "bf16"),
        limits=LIMITS,
        arena_bytes=64 + 4 * LIMITS.max_tokens,
        weights={"factors": "model.factors"},
        weight_bytes=256,
        programs={
            "forward": _program({"write": "T", "attend": "T", "select": "R"}, sizes),
            "decode": _program({"write": "T", "attend": "T", "all_rows": "T"}, {"T": BUCKETS.decode_rows}, decode=True),
            **{name: _program({name: "R"}, sizes) for name in ("greedy", "sample", "log_probs")},
        },
        files={"k.cubin": File("", 0), "library.json": File("", 0)},
        library="library.json",
        support=[],
    )
    (folder / "k.cubin").write_bytes(b"cubin")
    (folder / "library.json").write_bytes(msgspec.json.encode(library))
    return Artifact(folder, manifest), checkpoint


def _write_checkpoint(folder: Path) -> None:
    factors = np.arange(1, 65, dtype=np.uint16)
    save_file({"padding": np.zeros(3, np.float32)}, folder / "model.safetensors")
    header = {"model.factors": {"dtype": "BF16", "shape": [64], "data_offsets": [0, 128]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + factors.tobytes())
