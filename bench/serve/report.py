"""The README's tables of a server's results, beside its peers'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["OI", "at", "one", "rows", "section"]

OI = "**oi**"
_Tables = Mapping[str, Any]
"""One engine's, as `python -m bench.serve` writes them."""
_Row = Mapping[str, Any]


def section(ours: _Tables, peers: Mapping[str, _Tables]) -> str:
    """Markdown. Raises SystemExit where `ours` was measured with `--quick`."""
    if ours["quick"]:
        raise SystemExit("a result of --quick is a trial, not a result; measure it without")
    engines = {OI: ours, **peers}
    return "\n\n".join(
        [
            _process(engines),
            *(table for name, title, columns in _TABLES if (table := _table(engines, name, title, columns))),
            *(f"<sub>{engine}: {tables['note']}.</sub>" for engine, tables in peers.items()),
        ]
    )


def one(ours: _Tables, peers: Mapping[str, _Tables], name: str) -> str:
    """Markdown of one table."""
    title, columns = next((title, columns) for table, title, columns in _TABLES if table == name)
    return _table({OI: ours, **peers}, name, title, columns) or ""


def rows(tables: _Tables, name: str, like: _Tables) -> dict[float, _Row]:
    """Level or length → the row measured there, with prompts and answers as long as in `like`'s table."""
    lengths = {key: like[name][key] for key in ("input_len", "output_len") if key in like[name]}
    found = (row for row in tables.get(name, {}).get("rows", ()) if "skipped" not in row)
    return {row[_LEVELS[name]]: row for row in found if {**lengths, **row}.items() >= lengths.items()}


_LEVELS = {"qps_sweep": "qps", "closed_loop": "concurrency", "warm_prefix": "len", "host_restore": "len"}


def _process(engines: Mapping[str, _Tables]) -> str:
    """What a server costs before and beside its work."""
    lines = []
    for title, path, digits in _PROCESS:
        cells = [_number(at(tables, *path), digits) for tables in engines.values()]
        if cells[0] != _NONE:
            lines.append([title, *cells])
    return _markdown(["", *engines], lines)


_PROCESS = (
    ("process start to `/health` 200, page cache warm, s", ("start", "warm", "ready_s"), 2),
    ("the same, page cache cold, s", ("start", "cold", "ready_s"), 2),
    ("process start to first token, page cache warm, s", ("start", "warm", "first_token_s"), 2),
    ("resident memory of the process tree, idle, MB", ("footprint", "idle", "rss_mb"), 0),
    ("the same, after load", ("footprint", "after_load", "rss_mb"), 0),
    ("the same, peak under load", ("footprint", "peak_load", "rss_mb"), 0),
    ("proportional memory (PSS), idle, MB", ("footprint", "idle", "pss_mb"), 0),
)


def _table(
    engines: Mapping[str, _Tables], name: str, title: str, columns: Mapping[str, Callable[[_Row], str]]
) -> str | None:
    """A line for each of our levels, the engines side by side in each column."""
    ours = engines[OI].get(name, {})
    if "rows" not in ours:
        return None
    found = {engine: rows(tables, name, engines[OI]) for engine, tables in engines.items()}
    beside = {engine: by_level for engine, by_level in found.items() if by_level}
    heads = [f"{column}: {engine}" if len(beside) > 1 else column for column in columns for engine in beside]
    lines = []
    for level in found[OI]:
        measured = [by_level.get(level) for by_level in beside.values()]
        cells = [_NONE if row is None else cell(row) for cell in columns.values() for row in measured]
        lines.append([f"{level:g}", *cells])
    lengths = f", {ours['input_len']} tokens in, {ours['output_len']} out" if "input_len" in ours else ""
    return f"{title}{lengths}:\n\n" + _markdown([_HEADS[_LEVELS[name]], *heads], lines)


_HEADS = {"qps": "requests/s", "concurrency": "users", "len": "prompt tokens"}


def _spread(key: str) -> Callable[[_Row], str]:
    def cell(row: _Row) -> str:
        return f"{_number(at(row, key, 'p50'))} / {_number(at(row, key, 'p99'))}"

    return cell


def _throughput(row: _Row) -> str:
    failed = f", {row['failed']} failed" if row.get("failed") else ""
    return f"{row['out_tok_s']:,.0f}{failed}"


_LOAD: dict[str, Callable[[_Row], str]] = {
    "output tok/s": _throughput,
    "TTFT p50 / p99, ms": _spread("ttft_ms"),
    "TPOT p50 / p99, ms": _spread("tpot_ms"),
    "ITL p99, ms": lambda row: _number(at(row, "itl_ms", "p99")),
}
_TABLES: tuple[tuple[str, str, dict[str, Callable[[_Row], str]]], ...] = (
    ("qps_sweep", "Poisson arrivals", _LOAD),
    ("closed_loop", "Users who ask again once they are answered", _LOAD),
    (
        "warm_prefix",
        "First token of a prompt seen before",
        {"cold, ms": lambda row: _number(row["cold_ms"]), "warm p50 / p99, ms": _spread("warm_ms")},
    ),
    (
        "host_restore",
        "First token of a prompt that was moved to the host meanwhile",
        {"cold, ms": lambda row: _number(row["cold_ms"]), "restored p50 / p99, ms": _spread("restore_ms")},
    ),
)

_NONE = "–"


def at(tree: Any, *path: str) -> float | None:
    """What is there at `path`; None where the tree ends before."""
    for key in path:
        tree = (tree or {}).get(key)
    return tree  # type: ignore[no-any-return]  # JSON


def _number(value: float | None, digits: int | None = None) -> str:
    """Without `digits`: one after the point, none from 100 on."""
    if value is None:
        return _NONE
    return f"{value:,.{(0 if value >= 100 else 1) if digits is None else digits}f}"


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))
