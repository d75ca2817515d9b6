"""The README's table of `bench.step` and its plot: a step's time beside its floor."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["draw", "is_drawn", "section"]


def section(result: dict[str, Any]) -> str:
    """Markdown: one row a step."""
    read, flops = result["ceilings"]["read_tb_s"], result["ceilings"]["bf16_tflop_s"]
    lines = [
        f"| Qwen3-4B shape, bf16 | ms | floor at {read:.2f} TB/s, {flops:.0f} TFLOP/s | of the floor |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in _rows(result):
        lines.append(
            f"| {name} | {row['seconds'] * 1e3:.2f} | {row['floor'] * 1e3:.2f} | {row['floor'] / row['seconds']:.0%} |"
        )
    opened = sum(result["startup_seconds"].values())
    lines.append(
        f"\nOpened in {opened:.2f} s with every graph captured; {result['resident_mb']:.0f} MB resident then, "
        f"{result['resident_loaded_mb']:.0f} MB after all of the above."
    )
    return "\n".join(lines)


def _rows(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    rows = [(f"decode, {r['batch']} × {r['context']:,} tokens of context", r) for r in result["decode"]]
    rows += [(f"prefill of {r['tokens']:,}", r) for r in result["prefill"]]
    return [*rows, (f"last page of {result['prefix_hit']['context']:,}, the rest cached", result["prefix_hit"])]


def is_drawn(file: Path, result: dict[str, Any]) -> bool:
    """Whether `file` shows these figures. Needs no matplotlib."""
    return file.exists() and _fingerprint(result) in file.read_text()


def draw(file: Path, result: dict[str, Any]) -> None:
    """Write an SVG: decode by batch, prefill by length, each beside its floor."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "oi", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.ticker import StrMethodFormatter

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained", width_ratios=(2, 1))
    panels = (
        (axes[0], "decode step, ms", [(f"{r['batch']}\n{r['context']}", r) for r in result["decode"]]),
        (axes[1], "prefill, ms", [(f"{r['tokens']}", r) for r in result["prefill"]]),
    )
    for axis, title, rows in panels:
        places = range(len(rows))
        axis.bar(places, [r["seconds"] * 1e3 for _, r in rows], color="#4878a8", label="measured")
        axis.bar(places, [r["floor"] * 1e3 for _, r in rows], color="#1f2d3d", width=0.4, label="floor")
        axis.set(title=title, yscale="log")
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axis.tick_params(axis="y", which="both", labelsize=7)
        axis.set_xticks(list(places), [name for name, _ in rows], fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_xlabel("sequences, tokens of context")
    axes[1].set_xlabel("tokens")
    axes[0].legend(frameon=False)
    figure.savefig(file, metadata={"Description": _fingerprint(result), "Date": None})
    pyplot.close(figure)


def _fingerprint(result: dict[str, Any]) -> str:
    return "made of " + hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
