"""Checkpoint folders: what is mapped is what safetensors wrote, and whatever is damaged is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from oi.runtime.checkpoint import Checkpoint, config_hash, read_config, resolve
from oi.runtime.errors import CheckpointError


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng()
    return {name: rng.standard_normal((3, n), np.float32) for name, n in (("a", 5), ("b", 7))}


def write(folder: Path, header: object, data: bytes = b"", *, claimed: int | None = None) -> Checkpoint:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if claimed is None else claimed
    (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + text + data)
    return Checkpoint(folder)


def check_equal(checkpoint: Checkpoint, tensors: dict[str, np.ndarray]) -> None:
    for name, array in tensors.items():
        mapped = checkpoint.tensor(name)
        assert (mapped.dtype, mapped.shape, mapped.nbytes) == ("f32", array.shape, array.nbytes)
        assert mapped.owner.tobytes() == array.tobytes()
        assert mapped.address == mapped.owner.ctypes.data


def test_a_single_file(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    checkpoint = Checkpoint(tmp_path)
    check_equal(checkpoint, tensors)
    assert "a" in checkpoint
    with pytest.raises(CheckpointError, match="no tensor 'c'"):
        checkpoint.tensor("c")


def test_shards(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    for name, array in tensors.items():
        save_file({name: array}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in tensors}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    check_equal(Checkpoint(tmp_path), tensors)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../a.safetensors"}, "outside of the checkpoint folder"),
        ({"c": "a.safetensors"}, "does not have it"),
        ({"a": "gone.safetensors"}, "cannot be opened"),
        ([], "must hold a weight_map"),
    ],
)
def test_bad_index(tmp_path: Path, tensors: dict[str, np.ndarray], weight_map: object, message: str) -> None:
    save_file({"a": tensors["a"]}, tmp_path / "a.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(tmp_path)


def entry(dtype: str = "F32", shape: tuple[int, ...] = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "header",
    [
        entry(offsets=(0, 12)),  # beyond the file
        entry(offsets=(4, 8)),  # not the shape's size
        entry(offsets=(-8, 0)),
        entry(shape=(-1, -2)),
        entry(dtype="F99"),
        {"a": {"dtype": "F32"}},
        b"{not json",
        b"[]",
    ],
)
def test_bad_header(tmp_path: Path, header: object) -> None:
    with pytest.raises(CheckpointError):
        write(tmp_path, header, bytes(8))


@pytest.mark.parametrize("claimed", [9999, 1 << 62])
def test_a_header_longer_than_its_file(tmp_path: Path, claimed: int) -> None:
    with pytest.raises(CheckpointError, match="the header claims"):
        write(tmp_path, entry(), bytes(8), claimed=claimed)


def test_a_good_header_passes(tmp_path: Path) -> None:
    assert write(tmp_path, entry(), bytes(8)).tensor("a").shape == (2,)


def test_weights_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must be F32 or BF16"):
        write(tmp_path, entry(dtype="F16", offsets=(0, 4)), bytes(4)).tensor("a")


def test_truncated_and_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has neither"):
        Checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match="truncated"):
        Checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        read_config(tmp_path)


def test_no_such_folder() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        resolve("./nowhere")


def test_the_config_hash_is_of_what_shapes_the_model() -> None:
    base = {"hidden_size": 8, "eos_token_id": 1}
    assert config_hash(base) == config_hash({"eos_token_id": 2, "transformers_version": "x", "hidden_size": 8})
    assert config_hash(base) != config_hash({**base, "hidden_size": 16})
