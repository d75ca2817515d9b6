"""What is asked for is understood, and what is written down names no machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.environment import command
from bench.serve.options import parse


def test_defaults_are_the_published_tables() -> None:
    options = parse([])
    assert (options.input, options.output, options.seconds) == (1024, 128, 20)
    assert options.lengths[0] == 256
    assert options.lengths[-1] == 16_384
    assert options.repeats == 20
    assert {1, 4, 8, 16, 24, 32, 48} <= set(options.qps)
    assert {1, 256} <= set(options.concurrency)


def test_quick_can_be_refined() -> None:
    options = parse(["--quick", "--qps", "1,2.5"])
    assert options.qps == [1, 2.5]
    assert options.seconds < 20


def test_what_follows_is_for_oi_run() -> None:
    options = parse(["--model", "m", "--", "--quick", "--max-num-seqs", "3"])
    assert not options.quick
    assert options.arguments == ["--quick", "--max-num-seqs", "3"]


def test_urls() -> None:
    assert parse(["http://127.0.0.1:1/v1/"]).url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "argv",
    [
        ["--tables", "qps,lunch"],
        ["https://there"],
        ["http://here", "--", "--port", "1"],
        ["http://here", "--artifact", "a"],
    ],
)
def test_nonsense_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(argv)
    assert "error:" in capsys.readouterr().err


def test_commands_name_no_machine() -> None:
    argv = ["http://10.0.0.7:8000", "--model", "/home/me/Qwen3-4B", "--json", "bench/results/cpu/serve.json"]
    written = "python -m bench.serve URL --model Qwen3-4B --json bench/results/cpu/serve.json"
    assert command(argv, "bench.serve") == written
    assert command(["--model=/home/me/Qwen3-4B", "--", "--artifact", str(Path.home() / "a")], "bench.serve") == (
        "python -m bench.serve --model=Qwen3-4B -- --artifact a"
    )
