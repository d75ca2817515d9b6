"""Whatever the schema allows, and much that it does not: no answer is a 5xx, and every answer is as documented."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.http.server_process import RUN_REAL, ServerProcess

RUN = "from schemathesis.cli import schemathesis; schemathesis()"


@pytest.mark.slow
def test_answers_are_as_documented(tmp_path: Path) -> None:
    """Requests of the right form may still ask too much (a longer text than the context, …), so 400 is an answer."""
    with ServerProcess("--max-model-len", "128", "--log-level", "warning", command=RUN_REAL) as server:
        command = [sys.executable, "-c", RUN, "run", server.url + "/openapi.json", "--no-color"]
        options = [
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            "30",
            "--request-timeout",
            "60",  # 128 choices of 128 tokens take their time
            "--exclude-checks",
            "positive_data_acceptance",
        ]
        found = subprocess.run(
            [*command, *options, "--generation-database", "none"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert found.returncode == 0, found.stdout
        assert "Tested: 9" in found.stdout, found.stdout
        assert server.get("/health")[0] == 200
        server.wait_metric("num_requests_running", 0)
        assert server.log == []  # nothing failed inside of it
