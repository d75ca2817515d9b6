"""The command line of `python -m bench.serve`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

__all__ = ["TABLES", "parse"]

TABLES = ("start", "qps", "closed", "prefix", "restore")
_QUICK = {
    "qps": [4.0, 16.0],
    "concurrency": [1, 8],
    "input": 64,
    "output": 16,
    "seconds": 2.0,
    "lengths": [64, 256],
    "repeats": 5,
    "restore_repeats": 2,
    "rounds": 1,
    "timeout": 60.0,
}
_T = TypeVar("_T")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What follows `--` is left in `arguments`, for oi-run."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    if "--quick" in argv[:cut]:
        parser.set_defaults(**_QUICK)
    options = parser.parse_args(argv[:cut])
    options.arguments = list(argv[cut + 1 :])
    if options.url and (options.arguments or options.artifact):
        parser.error("URL is of a server that runs; --artifact and what follows `--` are for one that is started")
    if options.url:
        options.url = options.url.rstrip("/").removesuffix("/v1")
        if not options.url.startswith("http://"):
            parser.error(f"{options.url} must begin with http://")
    if unknown := set(options.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.serve",
        usage="%(prog)s [options] [URL] [-- options of oi-run]",
        description="Measure a server under load: one that is started here, or any OpenAI-compatible one at URL.",
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="of a running server, such as http://127.0.0.1:8000")
    parser.add_argument("--model", metavar="DIR", help="checkpoint (default: the bundled one; with URL: its tokenizer)")
    parser.add_argument("--artifact", metavar="DIR", help="compiled model (default: as oi-run finds it)")
    parser.add_argument("--tables", type=_list(str), default=list(TABLES), help=f"of {','.join(TABLES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a minute's trial of all of it: small and short levels")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    load = parser.add_argument_group("load")
    load.add_argument("--qps", type=_list(float), default=[1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 40.0, 48.0])
    load.add_argument("--concurrency", type=_list(int), default=[1, 8, 64, 256])
    load.add_argument("--input", type=int, default=1024, help="tokens of a prompt (default 1024)")
    load.add_argument("--output", type=int, default=128, help="tokens of an answer (default 128)")
    load.add_argument("--seconds", type=float, default=20.0, help="of a level, without its drain (default 20)")
    load.add_argument("--timeout", type=float, default=300.0, help="seconds for one request (default 300)")
    load.add_argument("--clients", type=int, default=2, help="client processes (default 2)")
    load.add_argument(
        "--prompts", choices=["text", "ids"], help="what is sent (default: text, if the tokenizer is here)"
    )
    prefix = parser.add_argument_group("prefixes")
    prefix.add_argument("--lengths", type=_list(int), default=[256, 512, 1024, 2048, 4096, 8192, 16384])
    prefix.add_argument("--repeats", type=int, default=20, help="of a warm prompt (default 20)")
    prefix.add_argument("--restore-repeats", type=int, default=5, help="of one restored from the host (default 5)")
    prefix.add_argument("--pool-tokens", type=int, help="what the device's KV cache holds, if the server does not say")
    parser.add_argument("--rounds", type=int, default=5, help="starts, page cache warm and cold each (default 5)")
    return parser


def _list(kind: Callable[[str], _T]) -> Callable[[str], list[_T]]:
    def parse(text: str) -> list[_T]:
        return [kind(part) for part in text.split(",")]

    return parse
