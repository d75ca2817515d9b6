"""Write the README's figures and the plots from bench/results/: `python -m bench.report` (`--check` only compares)."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def startup(result: dict[str, Any]) -> str:
    m = result["median"]
    return (
        "| bundled model | |\n| --- | ---: |\n"
        f"| process start to `/health` 200 | {m['ready_s']:.2f} s |\n"
        f"| resident memory of the process tree, ready | {m['idle_rss_mb']:.0f} MB |\n"
        f"| request to first streamed text | {m['first_text_s'] * 1e3:.0f} ms |"
    )


def prefix(result: dict[str, Any]) -> str:
    m = result["median"]
    return (
        f"A 2,000-token prompt is answered after {m['cold_s'] * 1e3:.0f} ms the first time and after "
        f"{m['warm_s'] * 1e3:.1f} ms the second ({m['cold_s'] / m['warm_s']:.0f}× sooner, "
        f"{m['cached_tokens']:.0f} tokens from the prefix cache)."
    )


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "peers": ("cpu/peers.json", peers),
    "startup": ("cpu/startup.json", startup),
    "prefix": ("cpu/prefix.json", prefix),
}


def fill(readme: str) -> str:
    """The README with the text between `<!-- NAME -->` and `<!-- /NAME -->` made anew from the results."""
    for name, (file, render) in SECTIONS.items():
        result = json.loads((RESULTS / file).read_text())
        cpu, cores = result["machine"]["cpu"], result["machine"]["cores"]
        machine = f"<sub>{cpu}, {cores} cores, commit {result['commit']}: `{result['command']}`</sub>"
        text = f"<!-- {name} -->\n{render(result)}\n\n{machine}\n<!-- /{name} -->"
        readme, found = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, t=text: t, readme, flags=re.DOTALL)
        assert found == 1, f"README.md has {found} places for {name!r}, not one"
    return readme


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the README is out of date")
    args = parser.parse_args()
    before = README.read_text()
    after = fill(before)
    if args.check and before != after:
        sys.exit("README.md is not what bench/results/ says; run python -m bench.report")
    README.write_text(after)


if __name__ == "__main__":
    main()
