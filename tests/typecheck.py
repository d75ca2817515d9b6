"""Run mypy over the packages under their import names (`python -m tests.typecheck`).

The folders are mapped to `oi.*` by setup.py; mypy knows no such mapping, so it is shown a tree of links.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "oi")
        package.mkdir()
        for name in ("ir", "codegen", "runtime", "models"):
            (package / name).symlink_to(ROOT / name)
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "oi"]
        return subprocess.run(command, cwd=folder, env={**os.environ, "MYPYPATH": folder}).returncode


if __name__ == "__main__":
    sys.exit(main())
