"""A run's figures on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["show"]


def show(result: dict[str, Any]) -> None:
    console, pinned = Console(width=120), result["ceilings"].get("pinned_gb_s")
    grown = result["growth"]
    console.print(
        f"{grown['gib']:.1f} GiB locked in {grown['seconds']:.1f} s after opening ({result['open_seconds']:.2f} s); "
        f"steps meanwhile p50 {grown['growing']['p50_ms']:.3f}, max {grown['growing']['max_ms']:.1f} ms; after "
        f"{grown['grown']['p50_ms']:.3f}, {grown['grown']['max_ms']:.1f} ms"
    )
    console.print(
        f"resident beside the pool: {result['resident_beside_pool_mb']:.0f} MB (CPU: slots not written yet count)"
    )
    table = Table("decode step, p50 ms", "alone", "saving", "restoring", "both", "worst", "GB/s, both")
    for row in result["copying"]:
        alone = row["alone"]["p50_ms"]
        times = [row[name]["p50_ms"] for name in ("alone", "save", "restore", "both")]
        name = f"{row['batch']} × {row['context']}"
        table.add_row(name, *(f"{t:.3f}" for t in times), f"{max(times) / alone:.3f}×", f"{row['both']['gb_s']:.1f}")
    console.print(table)
    table = Table("tokens", "new, ms", "on the device", "on the host", "of new", "found", "GB/s", "of pinned")
    for row in result["restore"]:
        speed = row["bus_gb_s"]
        table.add_row(
            str(row["length"]),
            *(f"{row[name]:.2f}" for name in ("cold_ms", "device_ms", "host_ms")),
            f"{row['cold_ms'] / row['host_ms']:.1f}×",
            f"{row['found']} of {row['findable']}",
            "-" if speed is None else f"{speed:.1f}",
            "-" if speed is None or pinned is None else f"{speed / pinned:.0%}",
        )
    console.print(table)
    table = Table(
        "decode beside", "p50 ms", "mean", "p99", "of alone (p50, mean)", "requests", "restored GB", "saved GB"
    )
    alone = result["beside"]["alone"]
    for name in ("alone", "hits", "restored"):
        row = result["beside"][name]
        table.add_row(
            name,
            *(f"{row[key]:.3f}" for key in ("p50_ms", "mean_ms", "p99_ms")),
            f"{row['p50_ms'] / alone['p50_ms']:.2f}×, {row['mean_ms'] / alone['mean_ms']:.2f}×",
            str(row["requests"]),
            *(f"{row[key] / 1e9:.2f}" for key in ("restored_bytes", "saved_bytes")),
        )
    console.print(table)
