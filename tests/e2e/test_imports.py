"""What a process that serves the bundled model imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COMPILE_TIME = ("torch", "triton", "tvm", "tvm_ffi", "numba", "transformers", "oi.ir", "oi.codegen", "oi.models")


def test_a_serving_process_imports_no_compiler(bundled: Path, bundled_artifact: Path) -> None:
    """In a fresh process: load the artifact, compute a step, load the server's modules, and look at sys.modules."""
    script = f"""
import sys
from oi.runtime.engine import Engine
from oi.runtime.engine_process import main
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.http.server import *
from oi.runtime.messages import SamplingParams, Submit
from oi.runtime.step import open_runner
engine = Engine(open_runner(EngineSettings({str(bundled_artifact)!r}, {str(bundled)!r})))
engine.submit(Submit(1, [5, 6, 7], SamplingParams(), max_tokens=2, logprobs=3))
assert engine.step().tokens and engine.step().tokens
names = {COMPILE_TIME!r}
print([m for m in sys.modules if m in names or m.startswith(tuple(n + "." for n in names))])
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (out.stdout.strip(), out.returncode) == ("[]", 0), out.stderr
