"""oi-run with the fake engine, and with an artifact that nobody looks into."""

import functools
import sys
from pathlib import Path

import oi.runtime.compile_once
import oi.runtime.engine_child
from oi.runtime.cli import main

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")

if __name__ == "__main__":
    oi.runtime.engine_child.spawn = functools.partial(
        oi.runtime.engine_child.spawn, command=[sys.executable, str(FAKE_ENGINE)]
    )
    oi.runtime.compile_once.ensure_artifact = lambda *_, **__: Path("nowhere")
    sys.exit(main())
