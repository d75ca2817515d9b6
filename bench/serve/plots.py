"""Drawings of a server's results beside its peers': latency and throughput by load, first token by prompt length."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.serve.report import OI, at, rows

__all__ = ["draw", "is_drawn"]

_Tables = Mapping[str, Any]


def is_drawn(file: Path, ours: _Tables, peers: Mapping[str, _Tables]) -> bool:
    """Whether `file` shows these figures. Needs no matplotlib."""
    return file.exists() and _fingerprint(ours, peers) in file.read_text()


def draw(file: Path, ours: _Tables, peers: Mapping[str, _Tables]) -> None:
    """Write an SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(_STYLE)
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    panels = [panel for panel in _PANELS if "rows" in ours.get(panel[0], {})]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.4 * len(panels), 3), layout="constrained", squeeze=False)
    for axis, (name, title, label, path) in zip(axes[0], panels, strict=True):
        for engine, tables in {OI: ours, **peers}.items():
            found = rows(tables, name, ours)
            levels = sorted(found.keys() & rows(ours, name, ours).keys())
            values = [at(found[level], *path) for level in levels]
            axis.plot(levels, values, marker="o", markersize=3, label=engine.strip("*"))
        axis.set(title=title, xlabel=label, xscale="linear" if name == "qps_sweep" else "log", yscale="log")
        ticks = list(rows(ours, name, ours))
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False)
    figure.savefig(file, metadata={"Description": _fingerprint(ours, peers), "Date": None})
    pyplot.close(figure)


_STYLE: Any = {
    "svg.hashsalt": "oi",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_PANELS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("qps_sweep", "TTFT p50, ms", "requests/s", ("ttft_ms", "p50")),
    ("qps_sweep", "TPOT p50, ms", "requests/s", ("tpot_ms", "p50")),
    ("closed_loop", "output tok/s", "users", ("out_tok_s",)),
    ("warm_prefix", "warm TTFT p50, ms", "prompt tokens", ("warm_ms", "p50")),
    ("host_restore", "restored TTFT p50, ms", "prompt tokens", ("restore_ms", "p50")),
)


def _fingerprint(ours: _Tables, peers: Mapping[str, _Tables]) -> str:
    return "made of " + hashlib.sha256(json.dumps([ours, peers], sort_keys=True).encode()).hexdigest()
