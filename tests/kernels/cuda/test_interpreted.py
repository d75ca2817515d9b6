"""Where there is no GPU, the kernels' tests run in Triton's interpreter: in a process of its own, as it is all or none.

What it does not reach needs a GPU: Gluon's kernels, and dependent launches.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU runs them"),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="this is the interpreter"),
]


def test_kernels_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 80, "most kernels' tests are interpreted"
