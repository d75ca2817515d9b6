"""Read an artifact: a manifest that fits this runtime, this machine and this checkpoint, and files that are whole."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from oi.runtime.checkpoint import config_hash
from oi.runtime.errors import ArtifactError
from oi.runtime.host_cpu import cpu_features
from oi.runtime.manifest import FORMAT, CudaMachine, Manifest

__all__ = ["Artifact", "check_fits", "open_artifact"]

_MEND = "compile it again: oi-compile models/qwen3.py"


@dataclass(frozen=True)
class Artifact:
    """An artifact's folder and its manifest. Every file named in the manifest was there, whole, when opened."""

    folder: Path
    manifest: Manifest

    def path(self, file: str) -> Path:
        return self.folder / file


def open_artifact(folder: Path) -> Artifact:
    """Read and check. Raises ArtifactError with the mend: missing, other format, damaged, wrong machine."""
    try:
        text = (folder / "manifest.json").read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"no artifact at {folder}: manifest.json is missing; {_MEND} -o {folder}") from None
    except OSError as e:
        raise ArtifactError(f"{folder}/manifest.json cannot be read: {e.strerror}") from e
    _check_format(folder, text)
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as e:
        raise ArtifactError(f"{folder}/manifest.json is damaged: {e}; {_MEND} -o {folder}") from e
    artifact = Artifact(folder, manifest)
    _check_machine(artifact)
    _check_files(artifact)
    return artifact


def check_fits(artifact: Artifact, config: dict[str, Any], checkpoint: Path) -> None:
    """Raises ArtifactError where the artifact was compiled for another model config than the checkpoint's."""
    if config_hash(config) != artifact.manifest.model.config_sha256:
        raise ArtifactError(
            f"the artifact at {artifact.folder} was compiled for another config than that of {checkpoint}; "
            f"{_MEND} --model {checkpoint}"
        )


def _check_format(folder: Path, text: bytes) -> None:
    """The format number first: of another format nothing else is known."""

    class _Format(msgspec.Struct):
        format: int

    try:
        found = msgspec.json.decode(text, type=_Format).format
    except msgspec.MsgspecError as e:
        raise ArtifactError(f"{folder}/manifest.json is damaged: {e}; {_MEND} -o {folder}") from e
    if found != FORMAT:
        raise ArtifactError(f"the artifact at {folder} has format {found}, this oi reads format {FORMAT}; {_MEND}")


def _check_machine(artifact: Artifact) -> None:
    """A CPU's features; which GPU there is, the device sees when it is opened."""
    target = artifact.manifest.target
    if isinstance(target, CudaMachine):
        return
    if target.arch != platform.machine():
        raise ArtifactError(
            f"the artifact at {artifact.folder} is for {target.arch}, this machine is {platform.machine()}; {_MEND}"
        )
    missing = sorted(set(target.features) - cpu_features())
    if missing:
        raise ArtifactError(
            f"the artifact at {artifact.folder} needs CPU features that this machine lacks ({', '.join(missing)}); "
            f"{_MEND}"
        )


def _check_files(artifact: Artifact) -> None:
    manifest = artifact.manifest
    for name in (manifest.library, *manifest.support, manifest.constants):
        if name is not None and name not in manifest.files:
            raise ArtifactError(f"the manifest at {artifact.folder} has no hash of {name!r}; {_MEND}")
    for name, expected in artifact.manifest.files.items():
        path = artifact.path(name)
        if not path.resolve().is_relative_to(artifact.folder.resolve()):
            raise ArtifactError(f"the manifest at {artifact.folder} names {name!r}, which is outside of the artifact")
        try:
            content = path.read_bytes()
        except OSError as e:
            raise ArtifactError(f"{path} cannot be read: {e.strerror}; {_MEND} -o {artifact.folder}") from e
        if len(content) != expected.bytes or hashlib.sha256(content).hexdigest() != expected.sha256:
            raise ArtifactError(f"{path} is damaged: its hash is not the manifest's; {_MEND} -o {artifact.folder}")
