"""Write an artifact folder, whole or not at all: built beside its place and put there by rename."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from oi.codegen.errors import CompileError
from oi.runtime.manifest import File, Manifest

__all__ = ["MANIFEST", "describe_files", "write_folder"]

MANIFEST = "manifest.json"

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux's fcntl.h


def write_folder(folder: Path, fill: Callable[[Path], Manifest]) -> int:
    """Let `fill` write the files into a fresh folder and return their manifest; then put it all at `folder`.

    There is no moment without an artifact where one was (on Linux), and concurrent writers do not disturb each
    other: the last one stays. Returns the bytes written. Raises CompileError where the place cannot be
    written, or holds something that is no artifact (which is left as it is).
    """
    folder = folder.absolute()
    _check_replaceable(folder)
    build = folder.parent / f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        build.mkdir(parents=True)
        manifest = fill(build)
        (build / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        total = sum(path.stat().st_size for path in build.rglob("*") if path.is_file())
        _put(build, folder)
    except OSError as e:
        raise CompileError(f"the artifact cannot be written to {folder}: {e}; choose another place with -o") from e
    finally:
        _remove(build)
    return total


def describe_files(folder: Path) -> dict[str, File]:
    """Hash and size of every file in the folder, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _describe(path) for path in paths}


def _describe(path: Path) -> File:
    content = path.read_bytes()
    return File(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _check_replaceable(folder: Path) -> None:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        names = [folder.name]
    if names and MANIFEST not in names:
        raise CompileError(f"{folder} exists and is no artifact; remove it, or choose another place with -o")


def _put(build: Path, folder: Path) -> None:
    """Move `build` to `folder`; what was there goes. A full folder cannot be renamed over, so it is exchanged."""
    while True:
        try:
            build.rename(folder)
            return
        except OSError as e:
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _exchange(build, folder):
            return
        old = build.with_name(f"{build.name}.old")
        with suppress(FileNotFoundError):  # another writer moved it away just now
            folder.rename(old)
        _remove(old)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step, where the system can (Linux)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)


def _remove(folder: Path) -> None:
    """Delete a folder that may not be there; its manifest last, for who lists it now must still see an artifact."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MANIFEST:
            path.unlink()
    shutil.rmtree(folder, ignore_errors=True)
