"""Load a model file: the Python file that says what a model is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Protocol

from oi.codegen.errors import CompileError
from oi.ir.graph import Module
from oi.ir.types import DType
from oi.runtime.artifact_path import installed_model_file

__all__ = ["ModelConfig", "ModelFile", "find_model_file", "load_model_file"]


class ModelConfig(Protocol):
    """What the compiler asks of a model file's config; the rest is the model file's own."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def max_position(self) -> int: ...


@dataclass(frozen=True)
class ModelFile:
    """The functions that docs/architecture.md asks of a model file."""

    path: Path
    parse_config: Callable[[Mapping[str, Any]], ModelConfig]
    build: Callable[[ModelConfig, DType], Module]
    checkpoint_names: Callable[[ModelConfig], dict[str, str]]


def find_model_file(name: str) -> Path:
    """A file here, or else the one of that name that is installed with oi. Raises ArtifactError."""
    path = Path(name)
    return path if path.is_file() else installed_model_file(name)


def load_model_file(path: Path) -> ModelFile:
    """Run the file. Raises CompileError where it fails or lacks a function."""
    name = f"oi_model_file_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CompileError(f"{path} is no Python file; name a model file such as models/qwen3.py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise CompileError(f"the model file {path} fails: {type(e).__name__}: {e}") from e
    functions = [getattr(module, f, None) for f in ("parse_config", "build", "checkpoint_names")]
    if not all(map(callable, functions)):
        raise CompileError(f"{path} is no model file: it must define parse_config, build and checkpoint_names")
    parse_config, build, checkpoint_names = functions
    return ModelFile(path, parse_config, build, checkpoint_names)  # type: ignore[arg-type]
