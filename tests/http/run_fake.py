"""oi-run with the fake engine, and with an artifact that nobody looks into."""

import functools
import sys
from pathlib import Path

import oi.runtime.cli
import oi.runtime.compile_once
from oi.runtime.engine_child import spawn


def fake_engine(*arguments: object) -> int:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.http.fake_engine import main  # in the child only, as the real one is

    return main(*arguments)  # type: ignore[arg-type]


if __name__ == "__main__":
    oi.runtime.cli.spawn = functools.partial(spawn, run=fake_engine)
    oi.runtime.compile_once.ensure_artifact = lambda *_, **__: Path("nowhere")
    sys.exit(oi.runtime.cli.main())
