"""Make `gemm_sm_90.json` from records of `tune_gemm`: `python -m oi.codegen.cuda.tuning.write_gemm_table RECORD…`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from oi.codegen.cuda.kernels.gemm import Gemm
from oi.codegen.cuda.tuning.gemm_table import table_key

__all__ = ["table_of"]


def _rows(measured: int, all_measured: list[int]) -> tuple[int, int | None]:
    """For which rows a measurement counts: down to the one before, but above 256 for as many tiles of rows only."""
    smaller = [m for m in all_measured if m < measured]
    first = measured - 127 if measured > 256 else smaller[-1] + 1 if smaller else 1
    return first, None if measured >= 8192 else measured


def table_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The launch chosen of each product by rows, else the fastest; the first record that holds a measurement counts."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for record in records:
        for gemm in record["gemms"]:
            by_rows = found.setdefault(table_key(Gemm(*(gemm[f] for f in ("n", "k", "swiglu", "f32")))), {})
            if gemm["configs"]:
                by_rows.setdefault(gemm["rows"], gemm)
    configs = {}
    for key, by_rows in sorted(found.items()):
        entries = []
        for rows, gemm in sorted(by_rows.items()):
            best = {k: v for k, v in gemm["configs"][gemm.get("chosen", 0)].items() if k != "error"}
            kernel, us = best.pop("kind"), best.pop("us")
            us = us and round(us, 1)  # none where it was timed among other products only
            cublas = round(gemm["cublas_us"], 1)
            span = _rows(rows, sorted(by_rows))
            entries.append({"rows": span, "kernel": kernel, "config": best, "us": us, "cublas_us": cublas})
        configs[key] = entries
    about = {k: records[0][k] for k in ("gpu", "torch", "triton", "commit")}
    return {**about, "configs": configs}


if __name__ == "__main__":
    table = table_of([json.loads(Path(path).read_text()) for path in sys.argv[1:]])
    Path(__file__).with_name("gemm_sm_90.json").write_text(json.dumps(table, indent=1) + "\n")
