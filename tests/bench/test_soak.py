"""A soak of a few seconds: a sound server passes, and each fault of another is named."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from tokenizers import Tokenizer

from bench.serve import prompts
from bench.serve.client import Record
from bench.serve.server import OwnServer
from bench.soak import __main__ as soak
from bench.soak.mix import Mix, Probe, log_uniform, probes
from bench.soak.report import faults, figures, spans
from bench.soak.users import Answer
from oi.runtime.checkpoint import bundled_folder

_ROOT = Path(__file__).parents[2]
_SHORT = ["--minutes", "0.06", "--warm-up", "0.6", "--users", "6"]


def _soak(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the figures."""
    file = folder / "soak.json"
    command = [sys.executable, "-m", "bench.soak", *_SHORT, "--json", str(file), *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=120)
    assert file.exists(), done.stderr
    result: dict[str, Any] = json.loads(file.read_text())
    for fault in result["faults"]:
        assert fault in done.stdout.replace("\n", " ")
    return done.returncode, result


@contextlib.contextmanager
def _server(*faults: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.bench.soak_server", *faults]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_sound_server(tmp_path: Path) -> None:
    with _server() as url:
        code, result = _soak(tmp_path, url, "--model", str(bundled_folder()), "--exact")
        assert url not in json.dumps(result)
    assert (code, result["faults"]) == (0, [])
    requests, greedy, minutes = result["requests"], result["greedy"], result["minutes"]
    assert requests["answered"] + requests["left"] == requests["sent"] > 20
    assert 0.2 < requests["streamed"] / requests["sent"] < 0.8
    assert greedy["equal"] == greedy["asked"] > 0
    assert len(minutes) == 2
    for row in minutes:
        assert row["ttft_ms"]["p50"] >= 50
        assert row["ttft_ms"]["p50"] <= row["e2e_ms"]["max"]
        assert row["itl_ms"]["p50"] >= 1
    assert result["last_to_first"]["ttft_ms_p99"] == pytest.approx(
        minutes[1]["ttft_ms"]["p99"] / minutes[0]["ttft_ms"]["p99"], abs=1e-3
    )
    assert result["rss"]["ratio"] == pytest.approx(1, abs=0.02)
    assert result["after"]["left_behind"] == {"running": 0, "waiting": 0, "of the pages held": 0}


def test_a_server_with_every_fault(tmp_path: Path) -> None:
    with _server("refuse", "cut", "leak", "differ") as url:
        code, result = _soak(tmp_path, url, "--model", str(bundled_folder()), "--exact")
    assert code == 1
    failed, grew, differ = result["faults"]
    assert result["requests"]["failures"].keys() == {"http 503", "error event"}
    assert failed.startswith(f"{result['requests']['failed']} requests failed")
    assert "memory grew" in grew
    assert result["rss"]["ratio"] > 1.1
    assert "greedy answers" in differ
    assert {other["at"] for other in result["greedy"]["differ"]} <= {3, 5}
    assert sum(other["n"] for other in result["greedy"]["differ"]) == result["greedy"]["asked"]


def test_pages_that_are_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "_EMPTY_SECONDS", 0.3)
    with _server("hold") as url:
        after = soak._left_behind(url)
    assert after["left_behind"] == {"running": 0, "waiting": 0, "of the pages held": 0.25}
    assert after["waited_s"] >= 0.3


def test_the_bundled_model(tmp_path: Path) -> None:
    arguments = ["--max-model-len", "512", "--kv-cache-mib", "4"]
    code, result = _soak(tmp_path, "--exact", "--", *arguments)
    others = [fault for fault in result["faults"] if "memory grew" not in fault]  # seconds do not tell
    assert others == []
    assert code == bool(result["faults"])
    assert result["command"].endswith(f"--exact -- {' '.join(arguments)}")
    assert result["engine"] == "oi"
    assert (result["longest_prompt"], result["longest_answer"]) == (320, 128)
    assert result["rss"]["first_mb"] > 20
    assert result["after"]["left_behind"] == {"running": 0, "waiting": 0, "of the pages held": 0}


def test_a_server_that_dies_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.soak", "--minutes", "5", "--", "--max-model-len", "512"]
    running = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if "before the first minute" in line:
            break
    server = next(child for child in psutil.Process(running.pid).children() if "oi.runtime.cli" in child.cmdline())
    server.children()[0].kill()
    _, said = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "oi-run ended with code 1" in said
    assert "the engine died" in said
    assert "Traceback" not in said


def test_a_server_that_takes_too_few_tokens() -> None:
    with OwnServer(["--max-model-len", "64"]) as server:
        server.wait_ready()
        command = [sys.executable, "-m", "bench.soak", *_SHORT, server.url, "--model", str(bundled_folder())]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "--max-model-len" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("max_model_len", [128, 4096, 40960])
def test_the_mix(max_model_len: int) -> None:
    """Every kind comes up as often as is said, and nothing is longer than the server takes."""
    chance = random.Random()
    words = [str(word) for word in prompts.vocabulary(bundled_folder(), as_ids=False)]
    mix = Mix("m", words, max_model_len, 3, probes(words, max_model_len, chance))
    tokenizer = Tokenizer.from_file(str(bundled_folder() / "tokenizer.json"))
    drawn = [mix.draw(chance) for _ in range(600)]
    bodies = [json.loads(request.body) for request in drawn]
    texts = [body.get("prompt") or "".join(m["content"] for m in body["messages"]) for body in bodies]
    lengths = [len(encoded.ids) for encoded in tokenizer.encode_batch(texts)]
    longest = min(16384, max_model_len - min(128, max_model_len // 4) - 64)
    assert mix.longest_prompt == longest
    assert min(lengths) == 1
    assert longest / 4 < max(lengths) <= longest
    assert sum(length**2 < longest for length in lengths) == pytest.approx(300, abs=100)  # of half: log-uniform
    for request, body in zip(drawn, bodies, strict=True):
        assert body["max_tokens"] == request.output <= 128
        assert body["stream"] == request.streamed
        assert ("messages" in body) == request.path.endswith("chat/completions")
    counts = Counter(
        kind
        for request, body in zip(drawn, bodies, strict=True)
        for kind, is_so in {
            "streamed": request.streamed,
            "sampled": body["temperature"] > 0,
            "probe": request.probe is not None,
            "impatient": request.patience is not None,
            "chat": "messages" in body,
        }.items()
        if is_so
    )
    assert counts["streamed"] == pytest.approx(300, abs=70)
    assert counts["sampled"] == pytest.approx(270, abs=70)
    assert counts["probe"] == pytest.approx(60, abs=40)
    assert counts["impatient"] == pytest.approx(39, abs=32)
    assert counts["chat"] == pytest.approx(216, abs=70)
    fields = {field for body in bodies for field in body}
    assert fields > {"top_p", "top_k", "min_p", "seed", "repetition_penalty", "frequency_penalty", "logprobs"}
    starts = Counter(text[:40] for text in texts if len(text) > 40)
    assert starts.most_common(1)[0][1] > 3, "some begin as others do"
    assert len(set(texts)) > 400


def test_lengths_are_log_uniform() -> None:
    chance = random.Random()
    lengths = [log_uniform(16384, chance) for _ in range(14000)]
    assert (min(lengths), max(lengths) <= 16384) == (1, True)
    for a, b in pairwise(2**i for i in range(15)):
        assert sum(a <= length < b for length in lengths) == pytest.approx(1000, abs=160)


def test_a_model_that_takes_too_little() -> None:
    with pytest.raises(ValueError, match="--max-model-len"):
        Mix("m", [" a"], 80, 0, [Probe(" a", 1)])


def _answer(sent: float, chunks: list[float], **more: Any) -> Answer:
    ids = more.pop("ids", [])
    record = Record(sent, sent, chunks=chunks, ended=chunks[-1] if chunks else sent, token_ids=ids)
    record.failure = more.pop("failure", None)
    return Answer(record, **{"streamed": True, "left": False, "probe": None, **more})


def _figures(answers: list[Answer], rss: list[tuple[float, float]] | None = None) -> dict[str, Any]:
    after = {"left_behind": {"running": 0.0, "of the pages held": 0.0}, "waited_s": 0.1}
    return figures(answers, [[1, 2, 3]], rss or [], spans(100.0, 2.0)) | {"after": after}


def test_figures_belong_to_their_minute() -> None:
    early = _answer(99.0, [99.5, 100.5])  # sent before: only its gap counts
    first = _answer(159.0, [159.1, 159.4, 161.4])  # a gap in each minute
    whole = _answer(170.0, [175.0], streamed=False)
    late = _answer(221.0, [222.0])
    rss = [(99.0, 5.0), (110.0, 100.0), (120.0, 102.0), (130.0, 140.0), (170.0, 103.0), (225.0, 900.0)]
    result = _figures([early, first, whole, late], rss)
    one, two = result["minutes"]
    assert (one["requests"], two["requests"]) == (1, 1)
    assert one["ttft_ms"]["max"] == pytest.approx(100)
    assert two["ttft_ms"] is None, "an answer not streamed has no first token"
    assert (one["itl_ms"]["max"], two["itl_ms"]["max"]) == (pytest.approx(1000), pytest.approx(2000))
    assert one["itl_ms"]["p50"] == pytest.approx(650)
    assert two["e2e_ms"]["p50"] == pytest.approx(5000)
    assert (one["rss_mb"], two["rss_mb"], result["rss"]["peak_mb"]) == (102, 103, 900)
    assert result["rss"]["ratio"] == pytest.approx(103 / 102, abs=1e-4)
    assert result["last_to_first"]["itl_ms_p99"] == pytest.approx(2.0, abs=0.02)
    assert result["last_to_first"]["ttft_ms_p50"] is None
    assert result["second_half_to_first"] == result["last_to_first"], "of two minutes"
    assert faults(result, exact=True) == []


def test_faults() -> None:
    good = _answer(110.0, [111.0])
    assert faults(_figures([good]), exact=True) == []
    assert "no request was answered" in faults(_figures([]), exact=True)
    left = _answer(110.0, [], left=True)
    assert faults(_figures([good, left]), exact=True) == []
    assert _figures([good, left])["requests"]["left"] == 1
    failed = _answer(110.0, [], failure="http 503")
    assert faults(_figures([good, failed]), exact=True) == ["1 requests failed: 1 http 503"]
    for last, found in ((102.0, []), (102.1, ["resident memory grew 1.021 times"]), (50.0, [])):
        assert faults(_figures([good], [(110.0, 100.0), (170.0, last)]), exact=True) == found
    held = _figures([good])
    held["after"]["left_behind"]["of the pages held"] = 0.25
    assert faults(held, exact=True) == ["0.25 of the pages held 0.1 s after the load"]


def test_greedy_answers_that_part() -> None:
    equal = _answer(110.0, [111.0], probe=0, ids=[1, 2, 3])
    other = _answer(110.0, [111.0], probe=0, ids=[1, 9, 3])
    short = _answer(110.0, [111.0], probe=0, ids=[1, 2])
    left = _answer(110.0, [111.0], probe=0, ids=[1], left=True)
    result = _figures([equal, other, other, short, left])
    assert (result["greedy"]["asked"], result["greedy"]["equal"]) == (4, 1)
    assert result["greedy"]["differ"] == [
        {"prompt": 0, "at": 1, "of": 3, "n": 2},
        {"prompt": 0, "at": 2, "of": 3, "n": 1},
    ]
    assert faults(result, exact=False) == []
    assert faults(result, exact=True) == ["3 greedy answers are not those alone"]


def test_shorter_than_two_minutes_are_two_halves() -> None:
    assert [(s.begin, s.end) for s in spans(10.0, 0.5)] == [(10.0, 25.0), (25.0, 40.0)]
    assert [s.begin for s in spans(10.0, 3.0)] == [10.0, 70.0, 130.0]
