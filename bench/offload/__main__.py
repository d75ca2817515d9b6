"""The host tier at work, without HTTP: what comes back, how fast, and what it costs those who decode meanwhile.

    python -m bench.offload CHECKPOINT --artifact DIR [--minutes 5] [--json bench/results/h100/offload.json]

    growth    steps while the tier's memory is being locked, beside steps after
    restore   first token of a prompt that is new, on the device, and on the host (others have flushed the device)
    copying   a decode step alone, and with copies of whole pages in flight all the time, each way and both
    beside    a decode's time a token alone, and beside a user whose prompts are all restored
    revisit   prompts of three times the device's pool, again at random: the answers are those of a hit on the device

In `beside` the other user's steps cost too (16 tokens of a prompt each): `hits` is that user with hits on the device.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.ceilings import ceilings
from bench.environment import command, describe, resident_bytes
from bench.offload.requests import beside, restore, revisit
from bench.offload.show import show
from bench.offload.steps import copies_of, copying, growth
from bench.offload.user import User
from oi.runtime.artifact import open_artifact
from oi.runtime.engine_settings import EngineSettings
from oi.runtime.step import open_runner


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.offload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--pool-tokens", type=int, default=22400, help="of the device (default 22400)")
    parser.add_argument("--host-gib", type=float, default=16.0, help="of the host tier (default 16)")
    parser.add_argument("--lengths", default="1024,4096,16384", help="of prompts restored (default 1024,4096,16384)")
    parser.add_argument("--minutes", type=float, default=0.0, help="of random revisits (default 0: none)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    kv = open_artifact(args.artifact).manifest.kv
    host = int(args.host_gib * 2**30)
    device = args.pool_tokens // kv.page_size * kv.page_bytes
    found: dict[str, Any] = {}
    with suppress(RuntimeError):  # no GPU, or no PyTorch: no ceiling
        found = ceilings()
    before = time.perf_counter()
    runner = open_runner(EngineSettings(str(args.artifact), str(args.checkpoint), kv_bytes=device, host_kv_bytes=host))
    opened = time.perf_counter() - before
    result: dict[str, Any] = {
        "command": command(sys.argv[1:], "bench.offload"),
        **describe(),
        "ceilings": found,
        "open_seconds": opened,
        "growth": growth(runner),
        "resident_beside_pool_mb": (resident_bytes() - copies_of(runner).num_slots * kv.page_bytes) / 1e6,
        "copying": copying(runner),
    }
    user = User(runner)
    result["restore"] = restore(user, [int(n) for n in args.lengths.split(",")])
    result["beside"] = beside(user)
    show(result)
    _write(args.json, result)
    if args.minutes:
        result["revisit"] = revisit(user, args.minutes, host // kv.page_bytes * kv.page_size)
        Console(width=120).print(result["revisit"])
        _write(args.json, result)


def _write(file: Path | None, result: dict[str, Any]) -> None:
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
