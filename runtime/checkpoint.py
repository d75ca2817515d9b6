"""A checkpoint folder: where it is, its config, and its tensors mapped into memory.

The format is Hugging Face's: `config.json` and one `model.safetensors`, or shards named by
`model.safetensors.index.json`. Files are mapped, not read: a tensor is a view of the page cache.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from oi.runtime.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Checkpoint", "MappedTensor", "StoredTensor", "bundled_folder", "config_hash", "read_config", "resolve"]

_HEADER_LIMIT = 100_000_000
"""Largest header in bytes that the safetensors format allows."""

_ITEMSIZE = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_DTYPE = {"F32": "f32", "BF16": "bf16"}


def bundled_folder() -> Path:
    """The checkpoint that comes with oi. It is found without importing `oi.models`."""
    spec = find_spec("oi.models")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "tiny"
    raise CheckpointError("the bundled checkpoint is not installed; reinstall oi, or name a checkpoint with --model")


def resolve(model: str | None) -> Path:
    """The local folder of a checkpoint: None is the bundled one, else a folder or a Hugging Face hub id.

    Raises CheckpointError where there is none; a hub id is downloaded (or found in the hub's cache).
    """
    if model is None:
        return bundled_folder()
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise CheckpointError(f"no checkpoint folder at {model!r}; give a folder that holds config.json, or a hub id")
    return _download(model)


def _download(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{hub_id!r} is not a folder here, and downloading it needs huggingface_hub: pip install 'oi[hub]'"
        ) from None
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt"]))
    except Exception as e:
        raise CheckpointError(f"{hub_id!r} is neither a folder here nor to be had from the hub: {e}") from e


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint folder. Raises CheckpointError."""
    return _read_json(folder / "config.json")


def config_hash(config: dict[str, Any]) -> str:
    """SHA-256 of what shapes the model: canonical JSON of the config without the fields that do not."""
    shaping = {k: v for k, v in config.items() if k not in _COSMETIC and not k.startswith("_")}
    return hashlib.sha256(json.dumps(shaping, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_COSMETIC = {"transformers_version", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range"}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; is {path.parent} a Hugging Face checkpoint folder?") from None
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON: {e}") from e
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


@dataclass(frozen=True, slots=True)
class MappedTensor:
    """Bytes of a tensor in a mapped file. `address` is valid as long as `owner` lives."""

    dtype: str
    """f32 or bf16."""
    shape: tuple[int, ...]
    address: int
    owner: np.ndarray[Any, np.dtype[np.uint8]]

    @property
    def nbytes(self) -> int:
        return self.owner.nbytes


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where the bytes of a tensor are in a file, for those who read rather than map it."""

    dtype: str
    """f32 or bf16."""
    shape: tuple[int, ...]
    path: Path
    offset: int
    nbytes: int


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _Shard:
    """One mapped safetensors file, its header checked against the file's size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as f:
                size = os.fstat(f.fileno()).st_size
                if size < 8:
                    raise CheckpointError(f"{path} is {size} bytes long: truncated; download it again")
                self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as e:
            raise CheckpointError(f"{path} cannot be opened: {e.strerror}") from e
        header = int.from_bytes(self._map[:8], "little")
        if header > min(_HEADER_LIMIT, size - 8):
            raise CheckpointError(f"{path}: the header claims {header} bytes of a {size} byte file; download it again")
        self._data = 8 + header
        self.entries = self._parse(self._map[8 : self._data], size - self._data)

    def _parse(self, header: bytes, data_bytes: int) -> dict[str, _Entry]:
        try:
            raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
            raw.pop("__metadata__", None)
            entries = {name: msgspec.json.decode(value, type=_Entry) for name, value in raw.items()}
        except msgspec.MsgspecError as e:
            raise CheckpointError(f"{self.path}: the header is not valid: {e}; download it again") from e
        for name, entry in entries.items():
            begin, end = entry.data_offsets
            itemsize = _ITEMSIZE.get(entry.dtype)
            if itemsize is None:
                raise CheckpointError(f"{self.path}: tensor {name!r} has unknown dtype {entry.dtype!r}")
            if min([begin, *entry.shape]) < 0 or end > data_bytes or end - begin != prod(entry.shape) * itemsize:
                raise CheckpointError(
                    f"{self.path}: tensor {name!r} has offsets {begin}…{end}, which do not fit its shape "
                    f"{entry.shape} or the file's {data_bytes} data bytes; download it again"
                )
        return entries

    def tensor(self, name: str) -> MappedTensor:
        import numpy as np  # here, because the HTTP process reads configs and maps nothing

        stored = self.stored(name)
        owner = np.frombuffer(self._map, np.uint8, stored.nbytes, stored.offset)
        return MappedTensor(stored.dtype, stored.shape, owner.ctypes.data, owner)

    def stored(self, name: str) -> StoredTensor:
        entry = self.entries[name]
        dtype = _DTYPE.get(entry.dtype)
        if dtype is None:
            raise CheckpointError(f"{self.path}: tensor {name!r} is {entry.dtype}; weights must be F32 or BF16")
        begin, end = entry.data_offsets
        return StoredTensor(dtype, tuple(entry.shape), self.path, self._data + begin, end - begin)


class Checkpoint:
    """The tensors of a folder by name. Raises CheckpointError where a file is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        single = folder / "model.safetensors"
        if single.exists():
            shard = _Shard(single)
            self._where = dict.fromkeys(shard.entries, shard)
            return
        index = folder / "model.safetensors.index.json"
        if not index.exists():
            raise CheckpointError(f"{folder} has neither model.safetensors nor model.safetensors.index.json")
        self._where = self._open_shards(index)

    def _open_shards(self, index: Path) -> dict[str, _Shard]:
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
            raise CheckpointError(f"{index} must hold a weight_map of tensor names to file names")
        for file in set(weight_map.values()):
            if Path(file).name != file:
                raise CheckpointError(f"{index} names {file!r}, which is outside of the checkpoint folder")
        shards = {file: _Shard(self.folder / file) for file in sorted(set(weight_map.values()))}
        for name, file in weight_map.items():
            if name not in shards[file].entries:
                raise CheckpointError(f"{index} says that {name!r} is in {file}, which does not have it")
        return {name: shards[file] for name, file in weight_map.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def tensor(self, name: str) -> MappedTensor:
        """Raises CheckpointError where the checkpoint has no tensor of this name."""
        return self._shard(name).tensor(name)

    def stored(self, name: str) -> StoredTensor:
        """The same without a view of the mapped file."""
        return self._shard(name).stored(name)

    def _shard(self, name: str) -> _Shard:
        shard = self._where.get(name)
        if shard is None:
            raise CheckpointError(f"{self.folder} has no tensor {name!r}; is it the model that was compiled?")
        return shard
