"""The README's lines on a soak."""

from __future__ import annotations

from typing import Any

__all__ = ["section"]


def section(result: dict[str, Any]) -> str:
    """Markdown: minutes of mixed load, the first of them beside the last."""
    requests, rss, greedy, after = result["requests"], result["rss"], result["greedy"], result["after"]
    minutes = result["seconds"]["minutes"] / 60
    left = ", ".join(f"{n:g} {what}" for what, n in after["left_behind"].items())
    first, last = result["minutes"][0], result["minutes"][-1]
    lines = [
        f"| {minutes:g} minutes of mixed load, {result['users']} users | first minute | last minute | ratio |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {title}, ms | {first[key][p]:.1f} | {last[key][p]:.1f} | {result['last_to_first'][f'{key}_{p}']:.2f} |"
            for title, key, p in (("TTFT p50", "ttft_ms", "p50"), ("TTFT p99", "ttft_ms", "p99"),
                                  ("ITL p50", "itl_ms", "p50"), ("ITL p99", "itl_ms", "p99"))
        ),
        f"| resident memory, MB | {rss['first_mb']:.0f} | {rss['last_mb']:.0f} | {rss['ratio']:.3f} |",
    ]  # fmt: skip
    told = (
        f"{requests['sent']:,} requests: {requests['failed']} failed, {requests['left']:,} left by their users; "
        f"{greedy['equal']} of {greedy['asked']} greedy answers under load are those given alone; "
        f"after the load: {left}."
    )
    return "\n".join(lines) + f"\n\n{told}"
