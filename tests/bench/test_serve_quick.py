"""The short version of the whole, on a server of the bundled model: what it starts, and one that runs already."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.serve import tables
from bench.serve.server import OwnServer, Served

_ROOT = Path(__file__).parents[2]


def _measure(folder: Path, *arguments: str) -> dict[str, Any]:
    file = folder / "serve.json"
    command = [sys.executable, "-m", "bench.serve", "--quick", "--json", str(file), *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert str(folder) not in file.read_text()
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@pytest.mark.slow
def test_every_table_of_a_server_started_here(tmp_path: Path) -> None:
    server = ["--max-model-len", "300", "--kv-cache-mib", "8", "--kv-offload", "--kv-offload-host-gib", "0.1"]
    result = _measure(tmp_path, "--", *server)
    assert result["quick"]
    assert result["engine"] == "oi"
    assert result["command"].endswith(f"--json serve.json -- {' '.join(server)}")
    start = result["start"]
    assert 0 < start["warm"]["ready_s"] < start["warm"]["first_token_s"]
    assert start["cold"].keys() in (start["warm"].keys(), {"skipped"})
    idle, after, peak = (result["footprint"][when] for when in ("idle", "after_load", "peak_load"))
    assert idle["processes"] == 2
    assert 20 < idle["pss_mb"] <= idle["rss_mb"] <= peak["rss_mb"]
    assert after["rss_mb"] <= peak["rss_mb"]
    levels = [*result["qps_sweep"]["rows"], *result["closed_loop"]["rows"]]
    assert [row.get("qps", row.get("concurrency")) for row in levels] == [4, 16, 1, 8]
    assert [row["n"] for row in result["qps_sweep"]["rows"]] == [8, 32]
    assert len({row["seed"] for row in levels}) == 4
    for row in levels:
        assert row["failed"] == 0, row["messages"]
        assert row["prompt_tokens"] == [64]
        assert row["cached_tokens"] == 0
        for what in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
            assert 0 < row[what]["p50"] <= row[what]["p90"] <= row[what]["p99"] <= row[what]["max"] or what == "itl_ms"
        assert row["ttft_ms"]["p50"] < row["e2e_ms"]["p50"]
        assert 0 < row["client_cpu"] < 1
    for row in result["warm_prefix"]["rows"]:
        assert row["failed"] == 0
        assert row["cached_tokens"][0] >= row["len"] - 16
        assert len(row["each_ms"]) == 5
    restored = result["host_restore"]
    assert restored["pool_tokens"] > 256
    for row in restored["rows"]:
        assert row["failed"] == 0
        assert row["cached_tokens"] == [(row["len"] - 1) // 16 * 16]
        assert len(row["each_ms"]) == 2


def test_a_server_that_runs_already(tmp_path: Path) -> None:
    with OwnServer(["--max-model-len", "100"]) as server:
        server.wait_ready()
        result = _measure(tmp_path, server.url, "--tables", "start,qps,prefix,restore", "--seconds", "0.5")
    assert "URL" in result["command"]
    assert server.url not in json.dumps(result)
    assert result["prompts"] == "token ids"  # nobody said where its tokenizer is
    assert result["start"] == {"skipped": "the server was not started here"}
    assert result["footprint"]["idle"]["processes"] == 2  # found by the port it listens at
    assert [row["failed"] for row in result["qps_sweep"]["rows"]] == [0, 0]
    assert result["warm_prefix"]["rows"][1] == {"len": 256, "skipped": "the server takes 100 tokens"}
    assert "no host tier" in result["host_restore"]["skipped"]


def test_a_server_that_does_not_say_what_its_pool_holds() -> None:
    bench = SimpleNamespace(server=Served("m", "e", None, None))
    assert "--pool-tokens" in tables.host_restore(bench, [64], 1, None)["skipped"]  # type: ignore[arg-type]


def test_nobody_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.serve", "http://127.0.0.1:9"], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "OpenAI-compatible" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dead_server_gives_no_figures() -> None:
    with OwnServer(["--max-model-len", "100"]) as server:
        server.wait_ready()
        server.check()
        psutil.Process(server.pid).kill()
        psutil.Process(server.pid).wait(10)
        with pytest.raises(SystemExit, match="oi-run ended"):
            server.check()


def test_a_server_that_does_not_start_says_why() -> None:
    with OwnServer(["--no-such-flag"]) as server, pytest.raises(SystemExit, match="no-such-flag"):
        server.wait_ready()
