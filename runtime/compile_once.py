"""Find the artifact of a checkpoint, or have it compiled: once, visibly, in a process of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from oi.runtime.artifact_path import DEFAULT_MODEL_FILE, default_path
from oi.runtime.checkpoint import config_hash, read_config
from oi.runtime.errors import ArtifactError
from oi.runtime.target import choose_target

__all__ = ["ensure_artifact"]


def ensure_artifact(checkpoint: Path, wanted: Path | None, *, may_compile: bool, target: str = "auto") -> Path:
    """The artifact's folder: `wanted`, or the default one for `target` (by default this machine's best).

    `target` is as in `oi-compile --target`. Raises OiError where the artifact is not there and cannot be made, or would
    not run for lack of a package.
    """
    if wanted is not None and (wanted / "manifest.json").is_file():
        return wanted
    target, note = choose_target(target)
    if note is not None:
        print(f"oi: {note}", file=sys.stderr, flush=True)
    artifact = wanted or default_path(config_hash(read_config(checkpoint)), target=target)
    if (artifact / "manifest.json").is_file():
        return artifact
    arguments = [DEFAULT_MODEL_FILE, "--model", str(checkpoint), "--target", target, "-o", str(artifact)]
    command = shlex.join(["oi-compile", *arguments])
    if not may_compile:
        raise ArtifactError(f"there is no artifact at {artifact}; make it with: {command}")
    if find_spec("tvm" if target == "cpu" else "triton") is None:
        raise ArtifactError(
            f"there is no artifact at {artifact}, and no compiler is installed to make it: "
            "pip install 'oi[compile]', or name an artifact by --artifact"
        )
    if target != "cpu":
        from oi.runtime.device.cuda.driver import load_bindings

        load_bindings()  # or serving would fail after all the compiling
    print(f"oi: no artifact for this model and machine yet; {command}", file=sys.stderr, flush=True)
    if subprocess.run([sys.executable, "-m", "oi.codegen.cli", *arguments], stdout=sys.stderr).returncode != 0:
        raise ArtifactError(f"compiling failed; its output above says why. To try again: {command}")
    return artifact
