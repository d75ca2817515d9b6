"""The README's tables of `bench.offload`: what comes back from the host, how fast, and what that costs the others."""

from __future__ import annotations

from typing import Any

__all__ = ["section"]


def section(result: dict[str, Any]) -> str:
    """Markdown."""
    parts = [_restore(result), _costs(result)]
    if "revisit" in result:
        parts.append(_revisit(result["revisit"]))
    return "\n\n".join(parts)


def _restore(result: dict[str, Any]) -> str:
    pinned = result["ceilings"].get("pinned_gb_s")
    lines = [
        "| tokens of a prompt | new, ms | on the GPU | on the host | of new | bus while copying, of pinned |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["restore"]:
        speed = row["bus_gb_s"]
        bus = "–" if speed is None or pinned is None else f"{speed:.1f} GB/s, {speed / pinned:.0%}"
        lines.append(
            f"| {row['length']:,} | {row['cold_ms']:.1f} | {row['device_ms']:.1f} | {row['host_ms']:.1f} "
            f"| {row['cold_ms'] / row['host_ms']:.1f}× | {bus} |"
        )
    return "First token in the engine, without HTTP, by where the prompt's pages are:\n\n" + "\n".join(lines)


def _costs(result: dict[str, Any]) -> str:
    lines = [
        "| decode, ms at p50 | alone | while pages are saved | restored | both |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in result["copying"]:
        alone = row["alone"]["p50_ms"]
        cells = [f"{row[way]['p50_ms']:.2f} ({row[way]['p50_ms'] / alone:.3f}×)" for way in ("save", "restore", "both")]
        lines.append(f"| {row['batch']} × {row['context']:,} | {alone:.2f} | {' | '.join(cells)} |")
    grown, beside = result["growth"], result["beside"]
    alone = beside["alone"]["p50_ms"]
    told = (
        f"{grown['gib']:.0f} GiB are locked in {grown['seconds']:.1f} s after ready; a decode step takes "
        f"{grown['growing']['p50_ms']:.2f} ms meanwhile, {grown['grown']['p50_ms']:.2f} after. "
        f"{beside['decoders']} users' time a token is {beside['restored']['p50_ms'] / alone:.2f}× that alone while "
        f"another's prompts are all restored (p50; {beside['hits']['p50_ms'] / alone:.2f}× while they are found on "
        f"the device)."
    )
    return "\n".join(lines) + f"\n\n{told}"


def _revisit(row: dict[str, Any]) -> str:
    wanted = row["tokens"] / row["device_tokens"]
    return (
        f"{row['minutes']:g} minutes of prompts of {wanted:.1f}× the device's pool, again at random: "
        f"{row['requests']:,} requests, {row['found'] / row['findable']:.1%} of the tokens found that can be, "
        f"{row['different']} answers other than those of a hit on the device, {row['pages_held']} pages held after, "
        f"{row['resident_growth_mb']:.1f} MB grown."
    )
