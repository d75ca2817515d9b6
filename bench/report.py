"""Write the README's figures and the plots from bench/results/: `python -m bench.report` (`--check` only compares)."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import step_report
from bench.offload.section import section as offload_section
from bench.serve import peers as serve_peers
from bench.serve import plots
from bench.serve import report as serve_report
from bench.soak.section import section as soak_section

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
README = ROOT / "README.md"

_ENGINES = {
    "oi": "**oi**, bf16",
    "llama.cpp": "llama.cpp, bf16",
    "hf-f32": "transformers, float32",
    "hf-bf16": "transformers, bf16",
}


def peers(result: dict[str, Any]) -> str:
    rows = [
        f"| {_ENGINES[name]} | {row['prefill_tok_s']:.0f} | {row['decode_tok_s']:.1f} | "
        f"{row['decode_gb_s']:.1f} GB/s, {row['read_fraction']:.0%} |"
        for name, row in sorted(result["engines"].items(), key=lambda item: list(_ENGINES).index(item[0]))
    ]
    head = (
        f"| Qwen3-0.6B shape, {result['threads']} threads | prefill of {result['prefill_tokens']}, tok/s "
        "| decode, tok/s | weights and cache read, of what the machine can |"
    )
    return "\n".join([head, "| --- | ---: | ---: | ---: |", *rows])


def _serve(folder: str) -> Callable[[dict[str, Any]], str]:
    def render(result: dict[str, Any]) -> str:
        plot = f"![latency and throughput by load]({(RESULTS / folder / 'serve.svg').relative_to(ROOT)})"
        return f"{serve_report.section(result, serve_peers.of(RESULTS / folder))}\n\n{plot}"

    return render


def _step(result: dict[str, Any]) -> str:
    plot = (RESULTS / "h100" / "step.svg").relative_to(ROOT)
    return f"{step_report.section(result)}\n\n![steps beside their floors]({plot})"


def _restore(result: dict[str, Any]) -> str:
    return serve_report.one(result, serve_peers.of(RESULTS / "h100"), "host_restore")


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "peers": ("cpu/peers.json", peers),
    "step": ("h100/step.json", _step),
    "serve-cpu": ("cpu/serve.json", _serve("cpu")),
    "serve-h100": ("h100/serve.json", _serve("h100")),
    "restore-h100": ("h100/restore.json", _restore),
    "offload-h100": ("h100/offload.json", offload_section),
    "soak-cpu": ("cpu/soak.json", soak_section),
    "soak-h100": ("h100/soak.json", soak_section),
}


def fill(readme: str) -> str:
    """The README, the text between `<!-- NAME -->` and `<!-- /NAME -->` made anew, empty where there is no result."""
    for name, (file, render) in SECTIONS.items():
        text = f"<!-- {name} -->\n{_body(RESULTS / file, render)}<!-- /{name} -->"
        literal = text.replace("\\", r"\\")
        readme, found = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", literal, readme, flags=re.DOTALL)
        assert found == 1, f"README.md has {found} places for {name!r}, not one"
    return readme


def _body(file: Path, render: Callable[[dict[str, Any]], str]) -> str:
    if not file.exists():
        return ""
    result = json.loads(file.read_text())
    cpu, cores = result["machine"]["cpu"], result["machine"]["cores"]
    gpu = result.get("device", result["machine"]).get("gpu")
    device = f"{gpu}, " if gpu else ""
    machine = f"<sub>{device}{cpu}, {cores} cores, commit {result['commit']}: `{result['command']}`</sub>"
    return f"{render(result)}\n\n{machine}\n"


def draw(*, check: bool) -> None:
    """The plots; with `check`, exit where one does not show what the results say."""
    for file in sorted(RESULTS.glob("*/serve.json")):
        figures = json.loads(file.read_text()), serve_peers.of(file.parent)
        plot = file.with_suffix(".svg")
        if not plots.is_drawn(plot, *figures):
            if check:
                sys.exit(f"{plot.relative_to(ROOT)} is not what bench/results/ says; run python -m bench.report")
            plots.draw(plot, *figures)


def draw_steps(*, check: bool) -> None:
    """As `draw`, of bench.step's results."""
    for file in sorted(RESULTS.glob("*/step.json")):
        result, plot = json.loads(file.read_text()), file.with_suffix(".svg")
        if not step_report.is_drawn(plot, result):
            if check:
                sys.exit(f"{plot.relative_to(ROOT)} is not what bench/results/ says; run python -m bench.report")
            step_report.draw(plot, result)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the README is out of date")
    args = parser.parse_args()
    before = README.read_text()
    after = fill(before)
    if args.check and before != after:
        sys.exit("README.md is not what bench/results/ says; run python -m bench.report")
    draw(check=args.check)
    draw_steps(check=args.check)
    README.write_text(after)


if __name__ == "__main__":
    main()
