"""The README says what the results say, beside peers measured at the same level, and a trial is no result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.serve import peers, plots
from bench.serve import report as serve_report

_PUBLISHED = report.RESULTS / "h100"


def _spread(p50: float) -> dict[str, float]:
    return {"p50": p50, "p99": 2 * p50}


def _level(**fields: Any) -> dict[str, Any]:
    spreads = {"ttft_ms": _spread(11), "tpot_ms": _spread(3), "itl_ms": _spread(4)}
    return {"failed": 0, "out_tok_s": 1234.5, **spreads, **fields}


def _result() -> dict[str, Any]:
    return {
        "quick": False,
        "commit": "c0ffee",
        "command": "python -m bench.serve --model qwen",
        "machine": {"cpu": "Some CPU", "cores": 3},
        "device": {"gpu": "Some GPU", "driver": "1"},
        "start": {"warm": {"ready_s": 1.5, "first_token_s": 1.6}, "cold": {"skipped": "no way"}},
        "footprint": {"idle": {"rss_mb": 400.4, "pss_mb": 300}, "after_load": None, "peak_load": None},
        "qps_sweep": {"input_len": 1024, "output_len": 128, "rows": [_level(qps=1.0), _level(qps=3.0, failed=2)]},
        "closed_loop": {"input_len": 128, "output_len": 512, "rows": [_level(concurrency=8)]},
        "warm_prefix": {
            "rows": [
                {"len": 256, "cold_ms": 9.5, "warm_ms": _spread(5)},
                {"len": 9999, "skipped": "too long"},
            ]
        },
        "host_restore": {"skipped": "no tier"},
    }


def _line(text: str, start: str) -> list[str]:
    found = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    assert len(found) == 1, f"{start!r} is in {len(found)} lines of {text}"
    return [cell.strip() for cell in found[0].strip("|").split("|")][1:]


def test_without_peers() -> None:
    text = serve_report.section(_result(), {})
    assert _line(text, "1") == ["1,234", "11.0 / 22.0", "3.0 / 6.0", "8.0"]
    assert _line(text, "3")[0] == "1,234, 2 failed"
    assert _line(text, "resident memory of the process tree, idle, MB") == ["400"]
    assert "page cache cold" not in text  # not measured
    assert "9999" not in text
    assert "host" not in text
    assert "vLLM" not in text


def test_beside_the_published_peer() -> None:
    text = serve_report.section(_result(), peers.of(_PUBLISHED))
    assert _line(text, "1") == ["1,234", "115", "11.0 / 22.0", "42.8 / 52.0", "3.0 / 6.0", "4.4 / 4.7", "8.0", "5.0"]
    assert _line(text, "3")[1] == "–"  # a level of ours alone
    assert _line(text, "8")[:2] == ["1,234", "1,705"]  # of 128 in and 512 out, not of 1024 in and 128 out
    assert _line(text, "256") == ["9.5", "22.2", "5.0 / 10.0", "19.8 / 26.0"]
    assert _line(text, "resident memory of the process tree, idle, MB") == ["400", "3,763"]
    assert _line(text, "process start to `/health` 200, page cache warm, s") == ["1.50", "83.12"]
    assert "one run a level, 12 s each" in text


def test_other_lengths_are_not_compared() -> None:
    result = _result()
    result["qps_sweep"]["input_len"] = 1000
    assert _line(serve_report.section(result, peers.of(_PUBLISHED)), "1") == [
        "1,234",
        "11.0 / 22.0",
        "3.0 / 6.0",
        "8.0",
    ]


def test_a_trial_is_refused() -> None:
    with pytest.raises(SystemExit, match="--quick"):
        serve_report.section({**_result(), "quick": True}, {})


def test_filling_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    markers = "\n".join(f"<!-- {name} -->\nold\n<!-- /{name} -->" for name in report.SECTIONS)
    assert report.fill(markers) == markers.replace("old\n", "")
    (tmp_path / "h100").mkdir()
    (tmp_path / "h100" / "serve.json").write_text(json.dumps(_result()))
    filled = report.fill(markers)
    assert "Some GPU, Some CPU, 3 cores, commit c0ffee: `python -m bench.serve --model qwen`" in filled
    assert "![latency and throughput by load](h100/serve.svg)" in filled
    assert report.fill(filled) == filled
    with pytest.raises(AssertionError, match="places for"):
        report.fill(markers.replace("<!-- serve-h100 -->", ""))


def test_plots_know_what_they_show(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ours, beside = _result(), peers.of(_PUBLISHED)
    plot = tmp_path / "serve.svg"
    assert not plots.is_drawn(plot, ours, beside)
    plots.draw(plot, ours, beside)
    assert plots.is_drawn(plot, ours, beside)
    first = plot.read_bytes()
    plots.draw(plot, ours, beside)
    assert plot.read_bytes() == first
    ours["qps_sweep"]["rows"][0]["tpot_ms"]["p50"] += 0.1
    assert not plots.is_drawn(plot, ours, beside)
