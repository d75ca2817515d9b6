"""Where an artifact is kept when nobody says: a folder of the user's cache, named by all that shapes it.

`oi-compile` writes there and `oi-run` looks there, so both compute the name here. Nothing of the compiler is
imported: its source files are found and hashed, so that a changed kernel is another artifact.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from oi.runtime.errors import ArtifactError
from oi.runtime.host_cpu import host_cpu
from oi.runtime.target import choose_target

__all__ = ["DEFAULT_MODEL_FILE", "artifact_key", "cache_folder", "default_path", "installed_model_file"]

DEFAULT_MODEL_FILE = "models/qwen3.py"


def default_path(
    config_sha256: str,
    limits: tuple[int, int] | None = None,
    model_file: Path | None = None,
    target: str = "auto",
) -> Path:
    """The artifact's folder for a checkpoint of this `checkpoint.config_hash`.

    `limits` are (max_tokens, max_sequences) where they are not the compiler's defaults, `model_file`
    is the model's definition where it is not `models/qwen3.py`, `target` is as for `target.choose_target`, which
    may raise. The folder need not exist. Raises ArtifactError where this installation has no compiler, so
    that only an artifact named by `--artifact` can be used.
    """
    model_file = model_file or installed_model_file(DEFAULT_MODEL_FILE)
    return cache_folder() / "artifacts" / artifact_key(config_sha256, limits, model_file, choose_target(target).target)


def artifact_key(config_sha256: str, limits: tuple[int, int] | None, model_file: Path, target: str) -> str:
    """32 hex digits over the model's config and definition, the limits, the target, the versions and the compiler."""
    digest = hashlib.sha256()
    facts = {
        "config": config_sha256,
        "limits": limits,
        "target": {"kind": "cpu", **asdict(host_cpu())} if target == "cpu" else {"kind": target},
        "tools": _tool_versions(),
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    digest.update(hashlib.sha256(model_file.read_bytes()).digest())
    for name, path in _compiler_sources("cuda" if target == "cpu" else "cpu"):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def cache_folder() -> Path:
    """`oi` under $XDG_CACHE_HOME, or under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "oi"


def installed_model_file(name: str) -> Path:
    """The installed model file of this name (`models/qwen3.py` or `qwen3.py`). Raises ArtifactError."""
    path = _package_folder("oi.models") / Path(name).name
    if not path.is_file():
        raise ArtifactError(f"no model file {name!r}: neither a file here nor one of oi's own in {path.parent}")
    return path


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ArtifactError(f"this installation has no {package}, so it cannot compile; name an artifact by --artifact")
    return Path(spec.origin).parent


def _compiler_sources(other: str) -> Iterator[tuple[str, Path]]:
    """All that decides what the compiler writes, in a stable order, named independently of where it is installed.

    `other` is the folder of the kind of machine that is not compiled for.
    """
    irrelevant = {"__pycache__", "reference", other}
    for package in ("oi.ir", "oi.codegen"):
        folder = _package_folder(package)
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not irrelevant & set(relative.parts):
                yield f"{package}/{relative.as_posix()}", path
    for schema in ("manifest.py", "cuda_library.py"):
        yield f"oi.runtime/{schema}", _package_folder("oi.runtime") / schema


def _tool_versions() -> list[str]:
    """oi's version and its pinned compile-time requirements (which need not be installed here)."""
    try:
        pinned = [r for r in requires("oi") or [] if "extra" in r and "compile" in r]
        return [f"oi=={version('oi')}", *sorted(pinned)]
    except PackageNotFoundError:
        return []
