"""An artifact that is damaged, of another format, machine or model is refused with the command that mends it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oi.runtime.artifact import check_fits, open_artifact
from oi.runtime.checkpoint import read_config
from oi.runtime.errors import ArtifactError


@pytest.fixture
def artifact(bundled_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundled_artifact, tmp_path / "artifact"))


def edit(artifact: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    change(manifest)
    (artifact / "manifest.json").write_text(json.dumps(manifest))


def test_a_whole_one_opens_and_fits(artifact: Path, bundled: Path) -> None:
    config = read_config(bundled)
    check_fits(open_artifact(artifact), config, bundled)
    with pytest.raises(ArtifactError, match="another config"):
        check_fits(open_artifact(artifact), {**config, "hidden_size": 1}, bundled)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "has format 99"),
        (lambda m: m.update(surprise=1), "damaged"),
        (lambda m: m.pop("kv"), "damaged"),
        (lambda m: m["target"].update(arch="pdp11"), "is for pdp11"),
        (lambda m: m["target"]["features"].append("flux"), r"lacks \(flux\)"),
        (lambda m: m["files"].update({"../x": m["files"][m["library"]]}), "outside of the artifact"),
        (lambda m: m["files"].pop(m["library"]), "no hash of"),
    ],
)
def test_a_bad_manifest(artifact: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit(artifact, change)
    with pytest.raises(ArtifactError, match=message) as e:
        open_artifact(artifact)
    assert "oi-compile" in str(e.value) or "outside" in str(e.value)


def test_damaged_and_missing_files(artifact: Path) -> None:
    library = artifact / json.loads((artifact / "manifest.json").read_text())["library"]
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        open_artifact(artifact)
    library.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_artifact(artifact)
    with pytest.raises(ArtifactError, match="no artifact at"):
        open_artifact(artifact / "nowhere")
