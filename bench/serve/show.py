"""Progress while it runs, tables when it is done."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["Steps", "show"]


class Steps:
    """A bar of what is done of `total` steps, and what the clients have sent of the present one."""

    def __init__(self, total: int) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, TextColumn("{task.fields[requests]}"), console=Console(stderr=True))
        self._task = self._progress.add_task("starting", total=total, requests="")
        self._begun = False
        self._total = total

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.update(self._task, completed=self._total, description="done", requests="")
        self._progress.stop()

    def announce(self, step: str) -> None:
        self._progress.update(self._task, description=step, advance=int(self._begun), requests="")
        self._begun = True
        if not self._progress.console.is_terminal:
            self._progress.console.print(step)

    def requests(self, sent: int, ended: int, failed: int) -> None:
        failures = f", {failed} failed" if failed else ""
        self._progress.update(self._task, requests=f"{ended} of {sent} requests answered{failures}")


def show(result: dict[str, Any]) -> None:
    console = Console()
    for name, render in _RENDERS.items():
        table = result.get(name)
        if table is None:
            continue
        if "skipped" in table:
            console.print(f"{name}: skipped, {table['skipped']}")
        else:
            console.print(render(name, table))
        if any(row.get("client_cpu", 0) > _BUSY for row in table.get("rows", ())):
            console.print(f"{name}: a client process used over {_BUSY:.0%} of a core; repeat it with more --clients")


def _footprint(name: str, table: dict[str, Any]) -> Table:
    view = _table(f"{name}, {table['idle']['processes']} processes", "", "idle", "after load", "peak under load")
    when = [table["idle"], table["after_load"] or {}, table["peak_load"] or {}]
    for label, key in (("RSS, MB", "rss_mb"), ("PSS, MB", "pss_mb")):
        view.add_row(label, *(_number(sizes.get(key), 0) for sizes in when))
    device = [sizes.get("device") or {} for sizes in when]
    view.add_row("device, MB", *(_number(d.get("tree_mb") or d.get("gpus_mb"), 0) for d in device))
    return view


def _start(name: str, table: dict[str, Any]) -> Table:
    view = _table(f"{name}, median of {len(table['rounds']['warm'])}, s", "page cache", "HTTP ready", "first token")
    for cache in ("warm", "cold"):
        figures = table[cache]
        cells = (
            [figures["skipped"]]
            if "skipped" in figures
            else [f"{figures[k]:.3f}" for k in ("ready_s", "first_token_s")]
        )
        view.add_row(cache, *cells)
    return view


def _load(name: str, table: dict[str, Any]) -> Table:
    title = f"{name}, {table['input_len']} in, {table['output_len']} out; ms at p50 / p99"
    columns = ("", "n", "failed", "out tok/s", "TTFT", "TPOT", "ITL", "client CPU")
    view = _table(title, *columns)
    for row in table["rows"]:
        level = row.get("qps", row.get("concurrency"))
        spread = [_spread(row[key]) for key in ("ttft_ms", "tpot_ms", "itl_ms")]
        failed = f"{row['failed']} {' '.join(row['failures'])}".strip()
        view.add_row(
            f"{level:g}", str(row["n"]), failed, f"{row['out_tok_s']:.0f}", *spread, f"{row['client_cpu']:.0%}"
        )
    return view


def _prefix(name: str, table: dict[str, Any]) -> Table:
    again = "restore_ms" if name == "host_restore" else "warm_ms"
    view = _table(f"{name}, TTFT in ms", "tokens", "cold", f"{again.removesuffix('_ms')} p50 / p99", "cached tokens")
    for row in table["rows"]:
        if "skipped" in row:
            view.add_row(str(row["len"]), row["skipped"])
        else:
            view.add_row(
                str(row["len"]), _number(row["cold_ms"]), _spread(row[again]), " ".join(map(str, row["cached_tokens"]))
            )
    return view


_BUSY = 0.7
"""CPU share of a client process from which on it may be what is measured."""

_RENDERS = {
    "footprint": _footprint,
    "start": _start,
    "qps_sweep": _load,
    "closed_loop": _load,
    "warm_prefix": _prefix,
    "host_restore": _prefix,
}


def _table(title: str, first: str, *columns: str) -> Table:
    view = Table(first, title=title, box=box.SIMPLE)
    for column in columns:
        view.add_column(column, justify="right")
    return view


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _spread(figures: dict[str, float] | None) -> str:
    return "–" if figures is None else " / ".join(_number(figures[key]) for key in ("p50", "p99"))
