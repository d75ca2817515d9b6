"""From a model's config to an artifact: build → passes → plan and lower → library → folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any, Protocol

from oi.codegen.artifact import describe_files, write_folder
from oi.codegen.dump import IrDump
from oi.codegen.errors import CompileError
from oi.codegen.lower import Lowered, lower_module
from oi.codegen.model_file import ModelConfig, ModelFile
from oi.codegen.pipeline import PIPELINE, optimize
from oi.codegen.target import Target
from oi.ir.graph import InputKind, Module
from oi.runtime.checkpoint import config_hash
from oi.runtime.manifest import FORMAT, KvCache, Limits, Manifest, Model

__all__ = ["Compiled", "Progress", "compile_artifact"]

CONSTANTS = "constants.bin"


class Progress(Protocol):
    """Told what the compiler is doing."""

    def phase(self, name: str, steps: int) -> None:
        """A phase of so many steps begins, the one before has ended."""

    def step(self, what: str) -> None:
        """A step of the phase is done."""


@dataclass(frozen=True)
class Compiled:
    """What was written."""

    folder: Path
    bytes: int
    kernels: int
    notes: tuple[str, ...]
    """What whoever compiles should know, a line each."""


def compile_artifact(
    model_file: ModelFile,
    hf_config: Mapping[str, Any],
    target: Target,
    limits: Limits,
    folder: Path,
    progress: Progress,
    dump: IrDump | None = None,
) -> Compiled:
    """Compile the model of a `config.json` for a target into `folder`.

    Raises an OiError or IRError that says the mend.
    """
    progress.phase("model", 1)
    config = model_file.parse_config(hf_config)
    module = model_file.build(config, target.activations)
    progress.step(f"{sum(len(graph.nodes) for graph in module.graphs.values())} ops")

    def passed(name: str, module: Module) -> None:
        if dump is not None:
            dump.phase(name, module)
        progress.step(name)

    progress.phase("passes", 1 + len(PIPELINE))
    module = target.specialize(optimize(module, passed))

    progress.phase("memory plan", 1)
    lowered = lower_module(module, target, limits)
    if dump is not None:
        dump.plan(lowered, limits)
    progress.step(f"arena {lowered.arena_bytes / 2**20:.1f} MiB")

    notes: tuple[str, ...] = ()

    def fill(build: Path) -> Manifest:
        nonlocal notes
        progress.phase("kernels", len(lowered.kernels))
        library = target.write_library(lowered.kernels, build, progress.step)
        notes = library.notes
        progress.phase("artifact", 1)
        if lowered.constants.data:
            (build / CONSTANTS).write_bytes(lowered.constants.data)
        return Manifest(
            format=FORMAT,
            built_by={"oi": _oi_version(), **target.versions()},
            target=target.manifest_target(),
            model=_model(config, hf_config, module),
            kv=_kv_cache(module),
            limits=limits,
            arena_bytes=lowered.arena_bytes,
            weights=_weights(lowered, model_file.checkpoint_names(config)),
            weight_bytes=lowered.weight_bytes,
            programs=lowered.programs,
            files=describe_files(build),
            library=library.path,
            support=list(library.support),
            constants=CONSTANTS if lowered.constants.data else None,
        )

    size = write_folder(folder, fill)
    progress.step(f"{size / 2**20:.1f} MiB")
    return Compiled(folder, size, len(lowered.kernels), notes)


def _oi_version() -> str:
    try:
        return version("oi")
    except PackageNotFoundError:
        return "unknown"


def _model(config: ModelConfig, hf_config: Mapping[str, Any], module: Module) -> Model:
    weights = {v.name: v.type for graph in module.graphs.values() for v in graph.of_kind(InputKind.WEIGHT)}
    architectures = hf_config.get("architectures") or ["unknown"]
    return Model(
        architecture=str(architectures[0]),
        config_sha256=config_hash(dict(hf_config)),
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        max_position=config.max_position,
        parameters=sum(prod(d for d in type.shape if isinstance(d, int)) for type in weights.values()),
    )


def _kv_cache(module: Module) -> KvCache:
    """The geometry of the one state that the programs have."""
    states = {v.type for graph in module.graphs.values() for v in graph.of_kind(InputKind.STATE)}
    if len(states) != 1:
        raise CompileError(f"a model must have one state, its KV cache, found {sorted(map(str, states))}")
    (kv,) = states
    layers, two, heads, page_size, dim = (d for d in kv.shape if isinstance(d, int))
    assert two == 2
    return KvCache(layers=layers, kv_heads=heads, head_dim=dim, page_size=page_size, dtype=kv.dtype.value)


def _weights(lowered: Lowered, names: Mapping[str, str]) -> dict[str, str]:
    used = {
        name: None
        for program in lowered.programs.values()
        for name, buffer in program.buffers.items()
        if buffer.kind == "weight"
    }
    missing = [name for name in used if name not in names]
    if missing:
        raise CompileError(f"the model file's checkpoint_names lacks the weights {', '.join(missing)}")
    return {name: names[name] for name in used}
