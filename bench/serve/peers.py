"""Figures of other engines, in the shape of our own results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["of"]

_VLLM = "vllm_published.json"


def of(folder: Path) -> dict[str, dict[str, Any]]:
    """Engine → its tables, as measured on the machine whose results are in `folder`; none for most machines."""
    file = folder / _VLLM
    return {"vLLM 0.22.1": _published(json.loads(file.read_text()))} if file.exists() else {}


def _published(data: dict[str, Any]) -> dict[str, Any]:
    held = data["footprint"]
    ready = held["startup_http_ready_s"]
    return {
        "note": f"{data['source']}; {data['caveats']}. Its cold start is without its compile cache, ours without the "
        "checkpoint in the page cache",
        "start": {"warm": {"ready_s": ready["warm_compile_cache"]}, "cold": {"ready_s": ready["cold"]}},
        "footprint": {
            "idle": {"rss_mb": held["rss_idle_mb"], "pss_mb": held["pss_idle_mb"]},
            "after_load": {"rss_mb": held["rss_after_stress_mb"]},
            "peak_load": {"rss_mb": held["rss_peak_mb"]},
        },
        **{ours: {"rows": _rows(data[theirs])} for ours, theirs in _TABLES.items()},
    }


_TABLES = {
    "qps_sweep": "qps_sweep",
    "closed_loop": "closed_loop",
    "warm_prefix": "warm_prefix_ttft_ms",
    "host_restore": "host_restore_ttft_ms",
}


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    lengths: dict[str, Any] = {key: table[key] for key in ("input_len", "output_len") if key in table}
    return [{**lengths, **_nested(dict(zip(table["columns"], row, strict=True)))} for row in table["rows"]]


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """`ttft_p50_ms` and `warm_p50` become `ttft_ms: {p50}` and `warm_ms: {p50}`, as in our own."""
    nested: dict[str, Any] = {}
    for key, value in row.items():
        if found := re.fullmatch(r"(\w+)_(p\d+)(?:_ms)?", key):
            nested.setdefault(f"{found[1]}_ms", {})[found[2]] = value
        else:
            nested["cold_ms" if key == "cold" else key] = value
    return nested
