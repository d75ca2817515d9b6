"""An artifact is put in place whole or not at all, whoever else writes to the same place."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from oi.codegen.artifact import describe_files, write_folder
from oi.codegen.errors import CompileError
from oi.runtime.manifest import FORMAT, CpuMachine, KvCache, Limits, Manifest, Model


def manifest(folder: Path, name: str = "test") -> Manifest:
    return Manifest(
        format=FORMAT,
        built_by={"who": name},
        target=CpuMachine("x86_64", "x86-64", []),
        model=Model("Qwen3ForCausalLM", "0" * 64, 10, 4, 8, 100),
        kv=KvCache(1, 1, 4, 16, "f32"),
        limits=Limits(1, 1, 1),
        arena_bytes=0,
        weights={},
        weight_bytes=0,
        programs={},
        files=describe_files(folder),
        library="kernels.so",
        support=[],
    )


def fill(text: str) -> Callable[[Path], Manifest]:
    def write(folder: Path) -> Manifest:
        (folder / "kernels.so").write_text(text)
        return manifest(folder, text)

    return write


def read(folder: Path) -> Manifest:
    return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest, strict=True)


def test_writes_hashes_and_leaves_nothing_beside(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "artifact"
    size = write_folder(folder, fill("one"))
    found = read(folder).files
    assert set(found) == {"kernels.so"}
    assert found["kernels.so"].sha256 == hashlib.sha256(b"one").hexdigest()
    assert found["kernels.so"].bytes == 3
    assert size == 3 + (folder / "manifest.json").stat().st_size
    assert [p.name for p in folder.parent.iterdir()] == ["artifact"]


def test_replaces_an_artifact_and_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_folder(folder, fill("one"))
    (folder / "stale").write_text("of the old one")
    write_folder(folder, fill("two"))
    assert read(folder).built_by == {"who": "two"}
    assert sorted(p.name for p in folder.iterdir()) == ["kernels.so", "manifest.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_replaces_without_a_system_that_can_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oi.codegen.artifact._exchange", lambda a, b: False)
    for text in ("one", "two"):
        write_folder(tmp_path / "artifact", fill(text))
    assert read(tmp_path / "artifact").built_by == {"who": "two"}
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_leaves_what_is_no_artifact(tmp_path: Path, what: str) -> None:
    place = tmp_path / "precious"
    if what == "folder":
        place.mkdir()
        (place / "thesis.txt").write_text("years of work")
    else:
        place.write_text("years of work")
    with pytest.raises(CompileError, match="-o"):
        write_folder(place, fill("one"))
    assert (place / "thesis.txt" if what == "folder" else place).read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_a_failed_build_leaves_the_artifact_that_was(tmp_path: Path) -> None:
    def fail(folder: Path) -> Manifest:
        (folder / "kernels.so").write_text("half")
        raise RuntimeError("the compiler broke")

    folder = tmp_path / "artifact"
    write_folder(folder, fill("one"))
    with pytest.raises(RuntimeError, match="broke"):
        write_folder(folder, fail)
    assert read(folder).built_by == {"who": "one"}
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_an_unwritable_place_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompileError, match="-o"):
        write_folder(tmp_path / "file" / "artifact", fill("one"))


@pytest.mark.parametrize("exchange", [True, False])
def test_concurrent_writers_leave_one_whole_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr("oi.codegen.artifact._exchange", lambda a, b: False)
    folder, failures = tmp_path / "artifact", []

    def write(name: str) -> None:
        try:
            for i in range(20):
                write_folder(folder, fill(f"{name}{i}"))
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    found = read(folder)
    assert (folder / "kernels.so").read_text() == found.built_by["who"]
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_readers_always_find_an_artifact_while_it_is_replaced(tmp_path: Path) -> None:
    folder, done, missing = tmp_path / "artifact", threading.Event(), []
    write_folder(folder, fill("first"))

    def look() -> None:
        while not done.is_set():
            if not (folder / "manifest.json").is_file():
                missing.append(1)

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(50):
        write_folder(folder, fill(str(i)))
    done.set()
    reader.join()
    assert not missing
