"""What a cubin says of its kernel: parameters and threads, in its ELF section `.nv.info.<entry>`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path

__all__ = ["launch_threads", "parameter_bytes"]

_KPARAM_INFO, _THREADS = 0x17, 0x10
_SIZED = 0x04


def parameter_bytes(cubin: Path, entry: str) -> list[int]:
    """Of each parameter in order, the two scratch pointers at the end included."""
    found = {}
    for attribute, payload in _attributes(cubin, entry):
        if attribute == _KPARAM_INFO:
            _, ordinal, _, flags = struct.unpack("<IHHI", payload)
            found[ordinal] = flags >> 18
    return [found[i] for i in range(len(found))]


def launch_threads(cubin: Path, entry: str) -> int:
    """Of a block, as the kernel was compiled for it."""
    (threads,) = (struct.unpack("<III", data) for attribute, data in _attributes(cubin, entry) if attribute == _THREADS)
    return prod(threads)


def _attributes(cubin: Path, entry: str) -> Iterator[tuple[int, bytes]]:
    info = _sections(cubin.read_bytes())[f".nv.info.{entry}"]
    at = 0
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _SIZED:
            yield attribute, info[at : at + size]
            at += size


def _sections(elf: bytes) -> dict[str, bytes]:
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, start + i * size) for i in range(count)]
    names_at = headers[names_index][4]
    sections = {}
    for name, _, _, _, offset, length in headers:
        begin = names_at + name
        sections[elf[begin : elf.index(b"\0", begin)].decode()] = elf[offset : offset + length]
    return sections
