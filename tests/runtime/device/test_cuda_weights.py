"""Weights land where the manifest places them, whatever the files and the size of the pinned blocks."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from oi.runtime.checkpoint import Checkpoint
from oi.runtime.device.cuda.driver import Driver
from oi.runtime.device.cuda.weights import Piece, Upload, plan_pieces
from oi.runtime.errors import CheckpointError, DeviceError
from oi.runtime.manifest import Buffer, Manifest, Program
from tests.runtime.device.cuda_model import fake_cuda, write_model
from tests.runtime.device.fake_cuda import ILLEGAL_ADDRESS, FakeCuda

Tensors = dict[str, np.ndarray]
SIZES = [700, 3, 1, 4096, 64, 9]


@pytest.fixture
def tensors() -> Tensors:
    rng = np.random.default_rng()
    return {f"w{i}": rng.integers(1 << 16, size=size, dtype=np.uint16) for i, size in enumerate(SIZES)}


def write_shard(path: Path, tensors: Tensors) -> None:
    header, offset = {}, 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in tensors.values()))


def checkpoint_of(folder: Path, shards: list[Tensors]) -> Checkpoint:
    folder.mkdir()
    names = [f"model-{i}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        write_shard(folder / name, shard)
    weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return Checkpoint(folder)


def manifest_of(tensors: Tensors, tmp_path: Path) -> tuple[Manifest, int]:
    """Every tensor at a place of its own, in another order than in the files; and the block's size."""
    buffers, offset = {}, 0
    for name in np.random.default_rng().permutation(list(tensors)).tolist():
        buffers[name] = Buffer("weight", "bf16", [*tensors[name].shape], offset)
        offset += -(-tensors[name].nbytes // 16) * 16
    artifact, _ = write_model(tmp_path)
    names = {name: name for name in tensors}
    return msgspec.structs.replace(artifact.manifest, weights=names, programs={"decode": Program(buffers, [])}), offset


def uploaded(cuda: FakeCuda, pieces: list[Piece], size: int) -> bytes:
    driver = Driver(cuda)
    base = driver.allocate(size, "weights take")
    with Upload(driver, pieces, base) as upload:
        upload.wait()
    return bytes(cuda.blocks[base])


@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
def test_every_byte_is_where_it_belongs(tensors: Tensors, tmp_path: Path, block: int) -> None:
    names = list(tensors)
    shards = [{n: tensors[n] for n in part} for part in (names[:2], names[2:5], names[5:])]
    manifest, size = manifest_of(tensors, tmp_path)
    pieces = plan_pieces(manifest, checkpoint_of(tmp_path / "c", shards), block)
    assert all(piece.size <= block for piece in pieces)
    cuda = fake_cuda()
    content = uploaded(cuda, pieces, size)
    for name, buffer in manifest.programs["decode"].buffers.items():
        assert content[buffer.offset :][: tensors[name].nbytes] == tensors[name].tobytes(), name
    assert not cuda.pinned


def test_small_tensors_share_a_read(tensors: Tensors, tmp_path: Path) -> None:
    manifest, _ = manifest_of(tensors, tmp_path)
    pieces = plan_pieces(manifest, checkpoint_of(tmp_path / "c", [tensors]))
    assert [len(piece.copies) for piece in pieces] == [len(SIZES)]


def test_a_tensor_that_is_not_there(tensors: Tensors, tmp_path: Path) -> None:
    manifest, _ = manifest_of(tensors, tmp_path)
    del tensors["w3"]
    with pytest.raises(CheckpointError, match="no tensor 'w3'"):
        plan_pieces(manifest, checkpoint_of(tmp_path / "c", [tensors]))


def test_a_file_cut_short_meanwhile(tensors: Tensors, tmp_path: Path) -> None:
    manifest, size = manifest_of(tensors, tmp_path)
    pieces = plan_pieces(manifest, checkpoint_of(tmp_path / "c", [tensors]))
    with (tmp_path / "c" / "model-0.safetensors").open("r+b") as file:
        file.truncate(1000)
    cuda = fake_cuda()
    with pytest.raises(CheckpointError, match="became shorter"):
        uploaded(cuda, pieces, size)
    assert not cuda.pinned


def test_a_copy_that_fails(tensors: Tensors, tmp_path: Path) -> None:
    manifest, size = manifest_of(tensors, tmp_path)
    cuda = fake_cuda()
    cuda.fail_next["cuMemcpyHtoDAsync"] = ILLEGAL_ADDRESS
    with pytest.raises(DeviceError, match="700"):
        uploaded(cuda, plan_pieces(manifest, checkpoint_of(tmp_path / "c", [tensors])), size)
