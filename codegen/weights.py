"""Where weights lie in one block of device memory: those that a kernel reads as one are neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from oi.codegen.errors import CompileError
from oi.runtime.manifest import Buffer

__all__ = ["place_weights"]

_ALIGNMENT = 256
"""Bytes, of every group's start."""


def place_weights(weights: Mapping[str, Buffer], groups: Iterable[tuple[str, ...]]) -> tuple[dict[str, int], int]:
    """Offsets by name, and the bytes of all. `groups` are names in the order in which they must follow each other.

    Raises CompileError where two groups ask for one weight.
    """
    offsets: dict[str, int] = {}
    end = 0
    own = [(name,) for name in weights]
    for group in (*dict.fromkeys(groups), *own):
        if group[0] in offsets and len(group) == 1:
            continue
        end = -(-end // _ALIGNMENT) * _ALIGNMENT
        for name in group:
            if name in offsets:
                raise CompileError(f"weight {name!r} would have to lie in two places: it is in several packed groups")
            offsets[name] = end
            end += _bytes(weights[name])
    return offsets, end


def _bytes(buffer: Buffer) -> int:
    itemsize = 2 if buffer.dtype == "bf16" else 4
    return itemsize * prod(d for d in buffer.shape if isinstance(d, int))
