"""`oi-compile`: compile a model ahead of time into an artifact that `oi-run` serves."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from oi.codegen.compiler import Compiled, compile_artifact
from oi.codegen.dump import IrDump
from oi.codegen.errors import CompileError
from oi.codegen.model_file import find_model_file, load_model_file
from oi.codegen.target import Target
from oi.ir.errors import IRError
from oi.runtime.artifact_path import DEFAULT_MODEL_FILE, default_path
from oi.runtime.checkpoint import config_hash, read_config, resolve
from oi.runtime.errors import OiError
from oi.runtime.manifest import Limits
from oi.runtime.target import choose_target

__all__ = ["main"]

_LIMITS = {"cpu": (512, 64), "cuda": (4096, 256)}
"""Tokens and sequences of a step, by kind of target, where nobody says."""
_EDITS_PER_SEQUENCE, _MOST_EDITS = 4096, 1 << 18


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for an error that the message says how to mend, 2 for bad usage."""
    args = _parser().parse_args(argv)
    console = Console(stderr=True, highlight=False)
    started = time.perf_counter()
    try:
        compiled = _compile(args, console)
    except (OiError, IRError) as e:
        notes = "".join(f" ({note})" for note in getattr(e, "__notes__", ()))
        print(f"oi-compile: error: {e}{notes}", file=sys.stderr)
        return 1
    for note in compiled.notes:
        print(f"oi-compile: note: {note}", file=sys.stderr)
    seconds, size = time.perf_counter() - started, compiled.bytes / 2**20
    print(f"{compiled.folder}  {size:.1f} MiB, {compiled.kernels} kernels, {seconds:.1f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("oi-compile", description=__doc__)
    parser.add_argument(
        "model_file",
        nargs="?",
        default=DEFAULT_MODEL_FILE,
        help="the file that says what the model is; one of oi's own is found wherever you are (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        metavar="DIR_OR_HUB_ID",
        help="checkpoint whose config.json to compile for (default: the bundled one)",
    )
    parser.add_argument(
        "--target",
        metavar="auto|cpu|cuda:ARCH",
        type=_target_name,
        default="auto",
        help="machine to compile for: this CPU, or a GPU like cuda:sm_90, which need not be here "
        "(default: this machine's GPU, where it has none its CPU)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="the artifact's folder (default: one of the user's cache, where oi-run looks)",
    )
    parser.add_argument(
        "--dump-ir", metavar="DIR", type=Path, help="write every phase of the compiler there, as text and as a drawing"
    )
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        type=_positive,
        help="tokens that one step can compute, decode rows and prompt chunks together "
        f"(default: {_LIMITS['cpu'][0]} on a CPU, {_LIMITS['cuda'][0]} on a GPU)",
    )
    parser.add_argument(
        "--max-sequences",
        metavar="N",
        type=_positive,
        help="sequences that one step can advance "
        f"(default: {_LIMITS['cpu'][1]} on a CPU, {_LIMITS['cuda'][1]} on a GPU)",
    )
    return parser


def _target_name(text: str) -> str:
    if text not in ("auto", "cpu") and not text.startswith("cuda:"):
        raise argparse.ArgumentTypeError(f"must be auto, cpu or like cuda:sm_90, found {text!r}")
    return text


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value


def _compile(args: argparse.Namespace, console: Console) -> Compiled:
    model_file = load_model_file(find_model_file(args.model_file))
    checkpoint = resolve(args.model)
    hf_config = read_config(checkpoint)
    name, note = choose_target(args.target)
    if note is not None:
        print(f"oi-compile: note: {note}", file=sys.stderr)
    default = _LIMITS[name.partition(":")[0]]
    sizes = (args.max_tokens or default[0], args.max_sequences or default[1])
    limits = Limits(*sizes, min(_EDITS_PER_SEQUENCE * sizes[1], _MOST_EDITS))
    folder = args.output or default_path(
        config_hash(hf_config), None if sizes == default else sizes, model_file.path, name
    )
    dump = None if args.dump_ir is None else IrDump(args.dump_ir)
    console.print(f"oi-compile: {checkpoint} for {name} with {model_file.path}")
    with _Bars(console) as bars:
        bars.phase("compiler", 1)
        target = _target(name, limits)
        bars.step("loaded")
        return compile_artifact(model_file, hf_config, target, limits, folder, bars, dump)


def _target(name: str, limits: Limits) -> Target:
    """Import a target's compiler only when it is asked for: it is large."""
    kind, _, arch = name.partition(":")
    package = {"cpu": "tvm", "cuda": "triton"}[kind]
    if find_spec(package) is None:
        raise CompileError(f"compiling for {name} takes {package}, which is not installed: pip install 'oi[compile]'")
    if kind == "cpu":
        from oi.codegen.cpu.target import CpuTarget

        return CpuTarget()
    from oi.codegen.cuda.target import CudaTarget

    return CudaTarget.of(arch, limits)


class _Seconds(ProgressColumn):
    """How long a phase took, or has taken so far."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_time or task.elapsed or 0:6.2f} s")


class _Bars:
    """A bar for each phase, with its seconds (a compiler.Progress)."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(width=11)),
            BarColumn(16),
            MofNCompleteColumn(table_column=Column(width=7)),
            _Seconds(table_column=Column(width=8)),
            TextColumn("{task.fields[what]}", table_column=Column(ratio=1, no_wrap=True), markup=False),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def phase(self, name: str, steps: int) -> None:
        self._task = self._progress.add_task(name, total=steps, what="")

    def step(self, what: str) -> None:
        assert self._task is not None
        self._progress.update(self._task, advance=1, what=what)


if __name__ == "__main__":
    sys.exit(main())
