"""Sizes that the scheduler plans with, from the artifact's limits, the settings and the memory there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oi.runtime.artifact import Artifact
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.errors import DeviceError
from oi.runtime.memory import GIB, available

__all__ = ["Geometry", "capacity", "host_slots", "plan"]


@dataclass(frozen=True)
class Geometry:
    """Sizes that the scheduler plans with."""

    max_model_len: int
    """Longest prompt + generation, in tokens."""
    max_num_seqs: int
    max_step_tokens: int
    max_edits: int
    pages: int
    page_size: int
    vocab_size: int
    token_buckets: tuple[int, ...] = ()
    """Rising: what the device pads a step with a prompt's tokens to; empty where it pads nothing."""
    key_cost: float = 0.0
    """Bytes of one token's K/V for each byte of weights that a step reads."""


def plan(artifact: Artifact, settings: EngineSettings, available: int) -> Geometry:
    """`available`: bytes that KV pages may take where the settings don't say. Raises DeviceError."""
    kv, limits, model = artifact.manifest.kv, artifact.manifest.limits, artifact.manifest.model
    sequences = _within(
        "--max-num-seqs", settings.max_num_seqs, limits.max_sequences, "or compile with oi-compile --max-sequences N"
    )
    wanted_len = _within("--max-model-len", settings.max_model_len, model.max_position, "the model knows no more")
    budget = settings.kv_bytes or available
    pages = min(budget // kv.page_bytes, sequences * -(-wanted_len // kv.page_size))
    longest = min(wanted_len, pages * kv.page_size)
    if (settings.max_model_len is not None and longest < wanted_len) or longest < kv.page_size:
        raise DeviceError(
            f"a context of {wanted_len} tokens needs {-(-wanted_len // kv.page_size) * kv.page_bytes >> 20} MiB of KV "
            f"pages, {budget >> 20} MiB are to be had; lower --max-model-len"
        )
    return Geometry(
        max_model_len=longest,
        max_num_seqs=sequences,
        max_step_tokens=_within(
            "a step's tokens", settings.max_step_tokens, limits.max_tokens, "or compile with oi-compile --max-tokens N"
        ),
        max_edits=limits.max_edits,
        pages=pages,
        page_size=kv.page_size,
        vocab_size=model.vocab_size,
        key_cost=kv.page_bytes / kv.page_size / (2 * model.parameters),
    )


def capacity(geometry: Geometry) -> Mapping[str, int]:
    """The largest size of each symbolic dim."""
    return {
        "T": geometry.max_step_tokens,
        "S": geometry.max_num_seqs,
        "R": geometry.max_num_seqs,
        "P": -(-geometry.max_model_len // geometry.page_size),
        "N": geometry.pages,
        "E": geometry.max_edits,
    }


def host_slots(size: int, page_bytes: int) -> int:
    """How many pages a host tier of `size` bytes holds. Raises DeviceError where it would be too small or too large."""
    if size < page_bytes:
        raise DeviceError(
            f"a host tier of {size >> 10} KiB holds no page of {page_bytes >> 10} KiB; raise --kv-offload-host-gib"
        )
    if size > (there := available()):
        raise DeviceError(
            f"a host tier of {size / GIB:.3g} GiB is more than the {there / GIB:.3g} GiB of memory that this machine "
            f"has available; lower --kv-offload-host-gib"
        )
    return size // page_bytes


def _within(what: str, wanted: int | None, limit: int, mend: str) -> int:
    if wanted is None:
        return limit
    if not 1 <= wanted <= limit:
        raise DeviceError(f"{what} must be from 1 to {limit}, found {wanted}; give one of those, {mend}")
    return wanted
