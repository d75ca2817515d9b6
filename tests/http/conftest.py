from collections.abc import Iterator
from pathlib import Path

import pytest

from oi.runtime.tokenizer import Tokenizer
from tests import tiny_tokenizer
from tests.http.server_process import RUN_REAL, ServerProcess

BUNDLED = Path(__file__).parents[2] / "models" / "tiny"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer.write(tmp_path_factory.mktemp("checkpoints") / "echo")


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer(checkpoint)


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[ServerProcess]:
    """On the fake engine."""
    with ServerProcess("--model", str(checkpoint)) as server:
        yield server


@pytest.fixture(scope="module", params=["fake", "real"])
def any_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """On the fake engine, and on the real one with the bundled model."""
    if request.param == "fake":
        yield request.getfixturevalue("server")
        return
    if not (BUNDLED / "model.safetensors").exists():
        pytest.skip("the bundled checkpoint is not there")
    with ServerProcess(command=RUN_REAL) as server:
        yield server
