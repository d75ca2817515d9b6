"""One engine in a process of its own: reads orders from stdin, answers on stdout, a JSON object a line.

`python -m bench.cpu_peers.worker ENGINE FOLDER THREADS`; orders are {"prefill": n} and {"decode": n}, answers
{"seconds": s} for all n tokens. A decode goes on from the last prefill.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Protocol


class Engine(Protocol):
    """A model loaded and ready. Prompts are random tokens, new ones each time."""

    def prefill(self, tokens: int) -> float:
        """Seconds to compute a fresh prompt of so many tokens, up to its first sampled token."""

    def decode(self, tokens: int) -> float:
        """Seconds to generate so many tokens greedily after the last prompt."""


ENGINES = {
    "oi": ("bench.cpu_peers.oi_engine", "bf16"),
    "hf-f32": ("bench.cpu_peers.huggingface", "f32"),
    "hf-bf16": ("bench.cpu_peers.huggingface", "bf16"),
    "llama.cpp": ("bench.cpu_peers.llama_cpp_engine", "bf16"),
}


def main() -> None:
    name, folder, threads = sys.argv[1:]
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries may print; answers go alone
    module, dtype = ENGINES[name]
    engine: Engine = importlib.import_module(module).load(Path(folder), dtype, int(threads))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        ((order, tokens),) = json.loads(line).items()
        print(json.dumps({"seconds": getattr(engine, order)(tokens)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
