"""`measure`: time an op, put its rate into the benchmark's record, print all of them as one table at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import pytest

from bench.environment import describe
from bench.kernels.cpu.launch import THREADS, best, fma_peak, read_bandwidth

_ROWS = pytest.StashKey[list[tuple[str, ...]]]()


class Measure:
    """Called once a test, with the op's launches and its floor."""

    def __init__(self, benchmark: Any, rows: list[tuple[str, ...]], name: str) -> None:
        self._benchmark, self._rows, self._name = benchmark, rows, name

    def __call__(
        self,
        launches: Callable[[], None] | Sequence[Callable[[], None]],
        *,
        bytes: float = 0,
        flop: float = 0,
        torch: Callable[[], object] | None = None,
    ) -> None:
        """`launches` run in turn (copies with cold weights). Rates are of the quickest round, `bytes` or `flop` each.

        The machine's own rate is the better of just before and just after; torch's time is measured after that.
        """
        calls = cycle([launches] if callable(launches) else launches)
        probe = read_bandwidth if bytes else fma_peak
        before = probe()
        self._benchmark.pedantic(lambda: next(calls)(), rounds=30, iterations=1, warmup_rounds=3)
        ceiling = max(before, probe())
        seconds = self._benchmark.stats.stats.min
        rate = (bytes or flop) / seconds
        unit = "GB/s" if bytes else "GFLOP/s"
        info = {unit: rate / 1e9, "of machine": rate / ceiling, "machine " + unit: ceiling / 1e9, "threads": THREADS}
        if torch is not None:
            info["torch time / ours"] = best(torch, 10) / seconds
        self._benchmark.extra_info.update(info)
        ratio = f"{info['torch time / ours']:.2f}" if torch else ""
        self._rows.append(
            (self._name, f"{seconds * 1e6:.1f} us", f"{rate / 1e9:.1f} {unit}", f"{rate / ceiling:.0%}", ratio)
        )


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Measure:
    return Measure(benchmark, request.config.stash.setdefault(_ROWS, []), request.node.name.removeprefix("test_"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = sorted(config.stash.get(_ROWS, []))
    if not rows:
        return
    table = [("kernel", "quickest", "rate", "of machine", "torch time / ours"), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    terminalreporter.section("CPU kernels")
    for row in table:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """`--benchmark-json FILE`: what was measured and on what, without pytest-benchmark's own record of the host."""
    rows = [
        {"kernel": b["name"].removeprefix("test_"), "quickest_s": b["stats"]["min"], **b["extra_info"]}
        for b in output_json["benchmarks"]
    ]
    output_json.clear()
    output_json.update({"command": "pytest bench/kernels/cpu --benchmark-only", **describe(), "kernels": rows})
