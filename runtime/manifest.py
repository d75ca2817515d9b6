"""The artifact's schema: the only thing that the compiler and the runtime share.

An artifact is a folder: `manifest.json` (a `Manifest`), the kernels, and nothing that runs as Python. The
compiler writes these records, the runtime reads them strictly: an unknown or missing field is an error.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FORMAT = 2
"""Raised with every change that makes older artifacts unreadable."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class CpuMachine(_Record, frozen=True, tag="cpu", tag_field="kind"):
    """Kernels in a shared library, for the machine's own CPU."""

    arch: str
    """Machine name as `platform.machine()` gives it."""
    mcpu: str
    """LLVM's CPU name."""
    features: list[str]
    """CPU features (as in /proc/cpuinfo's flags) that the kernels use; the machine must have all."""

    kind = "cpu"


class CudaMachine(_Record, frozen=True, tag="cuda", tag_field="kind"):
    """Cubins for an NVIDIA GPU; the library file is a `cuda_library.CudaLibrary`."""

    arch: str
    """Architecture of the cubins, like "sm_90"; target.runs_on says which GPUs run them."""

    kind = "cuda"


Target = CpuMachine | CudaMachine
"""What the kernels were built for."""


class File(_Record, frozen=True):
    sha256: str
    bytes: int


class Model(_Record, frozen=True):
    """What the runtime must know of the model, and the checkpoints it fits."""

    architecture: str
    config_sha256: str
    """Hash of the model config in canonical JSON (see checkpoint.config_hash)."""
    vocab_size: int
    hidden_size: int
    max_position: int
    """Longest context in tokens that the positions are defined for."""
    parameters: int


class KvCache(_Record, frozen=True):
    """Geometry of one page: [layers, 2, kv_heads, page_size, head_dim] of `dtype`."""

    layers: int
    kv_heads: int
    head_dim: int
    page_size: int
    dtype: str

    @property
    def page_bytes(self) -> int:
        itemsize = 2 if self.dtype == "bf16" else 4
        return self.layers * 2 * self.kv_heads * self.page_size * self.head_dim * itemsize


class Limits(_Record, frozen=True):
    """Sizes that the memory plan was made for; the runtime may use less, never more."""

    max_tokens: int
    """Tokens of one step (T)."""
    max_sequences: int
    """Sequences of one step (S), and rows sampled (R)."""
    max_edits: int
    """Logit edits of one step (E)."""


class Buffer(_Record, frozen=True):
    """A tensor that launches name. Symbolic dims are strings: "T", "S", "R", "P", "N", "E"."""

    kind: Literal["io", "weight", "constant", "state", "arena"]
    dtype: Literal["f32", "bf16", "i32"]
    shape: list[int | str]
    offset: int = 0
    """Bytes from the start of the arena, of the constants file or, where a device holds the weights in one block
    (the CPU leaves them in the mapped checkpoint), of that block; 0 for other kinds."""


class Variant(_Record, frozen=True):
    """A kernel and the largest row count it is meant for; the last variant of a launch has no bound."""

    kernel: str
    max_rows: int | None = None


class Launch(_Record, frozen=True):
    """One kernel call: `args` are buffer names, or ints passed by value (a layer's number)."""

    op: str
    rows: str
    """The symbolic dim whose size picks the variant: the first that fits."""
    variants: list[Variant]
    args: list[str | int]


class Program(_Record, frozen=True):
    """One graph, lowered. `io` buffers are shared by name between programs."""

    buffers: dict[str, Buffer]
    launches: list[Launch]


class Manifest(_Record, frozen=True):
    format: int
    built_by: dict[str, str]
    """Versions of oi, tvm, llvm, … that built it."""
    target: Target
    model: Model
    kv: KvCache
    limits: Limits
    arena_bytes: int
    """Bytes of scratch memory, shared by all programs (they never run at once)."""
    weights: dict[str, str]
    """Weight buffer name → tensor name in the checkpoint."""
    weight_bytes: int
    """Of the block of all weights."""
    programs: dict[str, Program]
    """`forward`, `greedy`, `sample`, `log_probs`; for CUDA also `decode`: every sequence has one token."""
    files: dict[str, File]
    """Every file but the manifest, by path relative to the artifact."""
    library: str
    """File with the kernels."""
    support: list[str]
    """Libraries to load before it, in order."""
    constants: str | None = None
    """File with the constant buffers."""
