"""Requests whose prompts are new, on the device or on the host: first tokens, answers, and what neighbours notice."""

from __future__ import annotations

import random
import statistics
import time
from contextlib import suppress
from typing import Any

from bench.environment import resident_bytes
from bench.offload.steps import STEPS, spread
from bench.offload.user import User
from oi.runtime.messages import StepDone

__all__ = ["beside", "restore", "revisit"]

REPEATS = 5


def restore(user: User, lengths: list[int]) -> list[dict[str, Any]]:
    rows = []
    for length in [n for n in lengths if n < user.limits.max_model_len]:
        cold = [user.ask(user.prompt(length)).first for _ in range(REPEATS)]
        prompt = user.prompt(length)
        user.ask(prompt)
        on_device = [user.ask(prompt) for _ in range(REPEATS)]
        on_host, moved, seconds = [], 0, 0.0
        for _ in range(REPEATS):
            user.flush()
            before = user.engine.stats()
            on_host.append(user.ask(prompt))
            after = user.engine.stats()
            moved += after.restored_bytes - before.restored_bytes
            seconds += after.restore_seconds - before.restore_seconds
        rows.append(
            {
                "length": length,
                "cold_ms": _median_ms(cold),
                "device_ms": _median_ms([a.first for a in on_device]),
                "host_ms": _median_ms([a.first for a in on_host]),
                "host_each_ms": [round(1e3 * a.first, 3) for a in on_host],
                "found": sorted({a.cached for a in on_host}),
                "findable": user.findable(prompt),
                "restored_bytes": moved,
                "bus_gb_s": moved / seconds / 1e9 if seconds else None,
            }
        )
    return rows


def beside(user: User) -> dict[str, Any]:
    """Decoding sequences, and a second user: none, one whose prompts are on the device, one whose are on the host."""
    length = min(4096, user.limits.max_model_len // 2)
    decoders, context = 4, min(512, user.limits.max_model_len // 4)
    steps = min(STEPS, context)
    prompts = [user.prompt(length) for _ in range(3 * user.limits.pages * user.limits.page_size // length)]
    row: dict[str, Any] = {"decoders": decoders, "context": context, "prompt": length}
    for name, others in (("alone", []), ("hits", prompts[-1:]), ("restored", prompts)):
        for prompt in prompts:  # of which the last stays on the device, and the one asked next has left it longest ago
            user.ask(prompt)
        user.settle()
        before = user.engine.stats()
        seconds, asked = _decode_beside(user, decoders, context, steps, others)
        after = user.engine.stats()
        row[name] = {
            **spread(seconds),
            "requests": asked,
            "restored_bytes": after.restored_bytes - before.restored_bytes,
            "saved_bytes": after.saved_bytes - before.saved_bytes,
            "seconds": sum(seconds),
        }
    return row


def _decode_beside(
    user: User, decoders: int, context: int, steps: int, others: list[list[int]]
) -> tuple[list[float], int]:
    """Seconds from token to token of the decoding sequences; requests that the other user got answered."""
    engine = user.engine
    ids = {user.submit(user.prompt(context), steps + 1) for _ in range(decoders)}
    other, asked, turn = 0, 0, iter(())  # type: ignore[var-annotated]
    last: dict[int, float] = {}
    seconds: list[float] = []
    while engine.has_work:
        done: StepDone = engine.step()
        now = time.perf_counter()
        for token in done.tokens:
            if token.id in ids:
                if token.id in last:
                    seconds.append(now - last[token.id])
                last[token.id] = now
            elif token.finish:
                asked, other = asked + 1, 0
        if others and not other and len(last) == len(ids) and not any(t.finish for t in done.tokens if t.id in ids):
            with suppress(StopIteration):
                other = user.submit(next(turn), 1)
                continue
            turn = iter(others)
    return seconds, asked


def revisit(user: User, minutes: float, host_tokens: int) -> dict[str, Any]:
    """One request at a time, and answers to the bit: each depends on nothing but the pages that were found.

    A prompt has one token beyond its pages, and prompt and answer never fill the page of that token. Were it filled, a
    page of the same content might take its place, if one is still on the device, computed by a step of another shape.
    """
    page = user.limits.page_size
    pool = user.limits.pages * page
    longest = min(4096, user.limits.max_model_len // 4)
    prompts, left = [], 3 * pool
    while left > 0:
        prompts.append(user.prompt(random.randint(longest // 4, longest) // page * page + 1))
        left -= len(prompts[-1])
    answers = []
    for prompt in prompts:
        user.ask(prompt, page - 1)
        answers.append(user.ask(prompt, page - 1).tokens)  # all its pages on the device
    counts = {"requests": 0, "different": 0, "found": 0, "findable": 0}
    start, resident, end = user.engine.stats(), resident_bytes(), time.monotonic() + 60 * minutes
    peak = resident
    while time.monotonic() < end:
        which = random.randrange(len(prompts))
        asked = user.ask(prompts[which], page - 1)
        counts["requests"] += 1
        counts["different"] += asked.tokens != answers[which]
        counts["found"] += asked.cached
        counts["findable"] += user.findable(prompts[which])
        if not counts["requests"] % 50:
            user.engine.scheduler.check()
            peak = max(peak, resident_bytes())
    user.settle()
    user.engine.scheduler.check()
    stats = user.engine.stats()
    return {
        "minutes": minutes,
        "prompts": len(prompts),
        "tokens": sum(map(len, prompts)),
        "device_tokens": pool,
        "host_tokens": host_tokens,
        **counts,
        "from_host": stats.host_hits - start.host_hits,
        "restored_bytes": stats.restored_bytes - start.restored_bytes,
        "saved_bytes": stats.saved_bytes - start.saved_bytes,
        "pages_held": stats.pages_used,
        "resident_growth_mb": (peak - resident) / 1e6,
    }


def _median_ms(seconds: list[float]) -> float:
    return 1e3 * statistics.median(seconds)
