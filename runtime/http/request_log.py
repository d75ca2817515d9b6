"""One line a request: what it cost and how it ended, and nothing of what was said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web

from oi.runtime.generation import Output
from oi.runtime.http.shapes import usage_of

__all__ = ["CLIENT_LEFT", "WORK", "Work", "how_it_ended", "log_request"]

CLIENT_LEFT = 499
"""The status logged where the client left before there was one."""

_log = logging.getLogger("oi.http")


class Work(NamedTuple):
    """What a request had the engine do."""

    id: str
    outputs: Sequence[Output]
    n: int
    """Outputs for each prompt."""


WORK = web.RequestKey("work", Work)


def how_it_ended(output: Output) -> str:
    return output.finish_reason or ("error" if output.error is not None else "abort")


def log_request(request: web.Request, status: int, began: float, now: float) -> None:
    """Generations, done or refused, at level info, the rest at debug. `began`, `now`: `time.perf_counter`."""
    work = request.get(WORK)
    if work is None:
        level = logging.INFO if request.method == "POST" else logging.DEBUG
        _log.log(level, "%s %s status=%d total_ms=%.1f", request.method, request.path, status, (now - began) * 1e3)
        return
    usage = usage_of(work.outputs, work.n)
    first = min((output.first_at for output in work.outputs if output.generated), default=began)
    _log.info(
        "request=%s status=%d sequences=%d prompt_tokens=%d cached_tokens=%d generated_tokens=%d finish=%s "
        "first_token_ms=%.1f total_ms=%.1f",
        work.id,
        status,
        len(work.outputs),
        usage.prompt_tokens,
        usage.prompt_tokens_details.cached_tokens,
        usage.completion_tokens,
        ",".join(sorted({how_it_ended(output) for output in work.outputs})),
        (first - began) * 1e3,
        (now - began) * 1e3,
    )
