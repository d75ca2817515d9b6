"""What dashboards read: Prometheus's text, /status.json, and the log."""

import json
import math
import random
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from oi.runtime.http.histogram import Histogram
from oi.runtime.http.metrics import Metrics
from oi.runtime.http.status import History
from oi.runtime.messages import Ready, Stats
from tests.http.server_process import ServerProcess

HELLO = {"prompt": "hello world, said the café", "temperature": 0, "max_tokens": 6, "ignore_eos": True}
DASHBOARD = [
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "num_preemptions_total",
    "request_success_total",
    "iteration_tokens_total_bucket",
    "time_to_first_token_seconds_bucket",
    "inter_token_latency_seconds_bucket",
    "time_per_output_token_seconds_bucket",
    "request_time_per_output_token_seconds_bucket",
    "e2e_request_latency_seconds_bucket",
    "request_decode_time_seconds_bucket",
    "request_prompt_tokens_bucket",
    "request_generation_tokens_bucket",
]
"""The samples that vLLM's own Grafana dashboard and the inference gateways ask for."""

SECONDS = st.floats(1.1e-4, 1e3)


@given(values=st.lists(SECONDS, min_size=1, max_size=50), before=st.lists(SECONDS), q=st.floats(0.01, 1))
def test_quantiles_are_those_of_the_values_since_then(values: list[float], before: list[float], q: float) -> None:
    histogram = Histogram([0.1, 1, 10], fine=True)
    for value in before:
        histogram.observe(value)
    since = list(histogram.counts)
    assert histogram.quantile(q, since) is None
    for value in values:
        histogram.observe(value)
    true = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    assert histogram.quantile(q, since) == pytest.approx(true, rel=0.11)


@given(values=st.lists(st.sampled_from([0.05, 0.1, 0.100001, 1, 9, 10, 11, 1e9, 0.0]), max_size=30), fine=st.booleans())
def test_buckets_hold_their_bound(values: list[float], fine: bool) -> None:
    histogram = Histogram([0.1, 1, 10], fine=fine)
    for value in values:
        histogram.observe(value)
    assert histogram.cumulative() == [(b, sum(v <= b for v in values)) for b in (0.1, 1, 10, math.inf)]
    assert histogram.sum == pytest.approx(sum(values))


def samples(server: ServerProcess) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(server.get("/metrics")[1]):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_what_dashboards_ask_for_is_there(server: ServerProcess) -> None:
    server.post("/v1/completions", HELLO)
    found = samples(server)
    assert not [name for name in DASHBOARD if f"vllm:{name}" not in found]
    assert all(s.labels["model_name"] for group in found.values() for s in group)
    assert {s.labels["finished_reason"] for s in found["vllm:request_success_total"]} >= {"stop", "length", "abort"}
    assert not [name for name in found if name.endswith("_created")]


def test_counts_agree_with_what_clients_see(server: ServerProcess) -> None:
    def total(name: str, **labels: str) -> float:
        group = samples(server)[f"vllm:{name}"]
        return sum(s.value for s in group if labels.items() <= s.labels.items())

    def seen() -> list[float]:
        return [
            total("prompt_tokens_total"),
            total("generation_tokens_total"),
            total("prompt_tokens_by_source_total", source="local_cache_hit"),
            total("request_success_total", finished_reason="length"),
            total("time_to_first_token_seconds_count"),
            total("inter_token_latency_seconds_count"),
            total("request_generation_tokens_sum"),
        ]

    body = {**HELLO, "prompt": f"{random.random()} " * 12}
    server.wait_metric("num_requests_running", 0)
    before = seen()
    usages = [server.post("/v1/completions", body)[1]["usage"] for _ in range(2)]
    server.wait_metric("num_requests_running", 0)
    after = seen()
    cached = usages[1]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0
    gained = [b - a for a, b in zip(before, after, strict=True)]
    assert gained == [2 * usages[0]["prompt_tokens"], 12, cached, 2, 2, 10, 12]


def test_steps_are_observed_once_each() -> None:
    metrics = Metrics("m")
    metrics.ready = Ready(64, 4, 512, 10, 16)
    for steps, prompt, generated in [(0, 0, 0), (1, 30, 1), (1, 30, 1), (2, 30, 3)]:
        metrics.observe_stats(Stats(steps, 1, 0, 5, 0, 10, 30, 0, prompt, generated, 0, 0.004))
    text = metrics.exposition().decode()
    found = {s.name: s for family in text_string_to_metric_families(text) for s in family.samples}
    assert found["vllm:iteration_tokens_total_count"].value == 2
    assert found["vllm:iteration_tokens_total_sum"].value == 33
    assert found["oi:step_seconds_sum"].value == pytest.approx(0.008)
    assert found["vllm:kv_cache_usage_perc"].value == 0.5
    assert found["vllm:cache_config_info"].labels["block_size"] == "16"


def test_both_tiers_are_told_by_the_names_that_vllm_has_for_them() -> None:
    def samples() -> dict[tuple[str, str], float]:
        families = text_string_to_metric_families(metrics.exposition().decode())
        return {(s.name[5:], s.labels.get("transfer_type") or s.labels.get("source", "")): s.value
                for family in families for s in family.samples if s.name.startswith("vllm:")}  # fmt: skip

    metrics = Metrics("m")
    stats = Stats(9, 1, 0, 5, 0, 10, 100, 30, 50, 7, 0, 0.004)
    metrics.observe_stats(stats)
    assert not [name for name, _ in samples() if "offload" in name or "external_prefix" in name]
    metrics.observe_stats(
        msgspec.structs.replace(
            stats, host_pages_used=3, host_pages_total=4, host_hits=20, saved_bytes=1000, restored_bytes=600,
            save_seconds=0.5, restore_seconds=0.25,
        )
    )  # fmt: skip
    found = samples()
    assert found["cpu_cache_usage_perc", ""] == 0.75
    assert (found["external_prefix_cache_queries_total", ""], found["external_prefix_cache_hits_total", ""]) == (70, 20)
    assert found["prompt_tokens_total", ""] == 100
    assert found["prompt_tokens_by_source_total", "external_kv_transfer"] == 20
    assert found["kv_offload_total_bytes_total", "GPU_to_CPU"] == 1000
    assert found["kv_offload_total_bytes_total", "CPU_to_GPU"] == 600
    assert found["kv_offload_total_time_total", "CPU_to_GPU"] == 0.25


def test_the_history_is_of_the_last_minute() -> None:
    now = 0.0
    metrics = Metrics("m")
    history = History(metrics, clock=lambda: now)
    assert history.line(10) is None
    assert history.report("m", "loading").series.running == []
    for second in range(1, 101):
        now = float(second)
        metrics.observe_stats(
            Stats(second * 10, 3, 1, 5, 2, 10, second * 8, second * 2, second * 100, second * 7, 0, 0.1)
        )
        metrics.first_token.observe(1.0 if second <= 40 else 0.01)
        history.tick()
    report = history.report("m", "ready")
    assert report.generated_tokens_per_second == pytest.approx(7)
    assert report.prompt_tokens_per_second == pytest.approx(100)
    assert report.prefix_hit_rate == pytest.approx(0.25)
    assert report.first_token.p99 == pytest.approx(0.01, rel=0.1)
    assert report.inter_token.p50 is None
    assert report.series.generated_tokens == [7.0] * 60
    assert report.kv.used == 5
    assert report.host is None
    line = history.line(10)
    assert line is not None
    assert "running=3 waiting=1 pages_used=50.0% prefix_hits=25.0% prompt_tokens_per_s=100.0" in line
    metrics.observe_stats(Stats(1000, 0, 0, 0, 7, 10, 800, 200, 10_000, 700, 0, 0.1, 3, 12))
    for second in range(101, 120):
        now = float(second)
        history.tick()
    assert history.line(10) is None
    host = history.report("m", "ready").host
    assert host is not None
    assert (host.used, host.total) == (3, 12)


def test_status_json(server: ServerProcess) -> None:
    server.post("/v1/completions", HELLO)
    time.sleep(1.2)
    status, text = server.get("/status.json")
    report = json.loads(text)
    assert status == 200
    assert report["state"] == "ready"
    assert report["finished"]["length"] > 0
    assert report["first_token"]["p50"] > 0
    assert len(report["series"]["generated_tokens"]) == len(report["series"]["kv"]) >= 1


def log_line(server: ServerProcess, pattern: str) -> dict[str, str]:
    """The fields of the line that matches, which may yet be on its way."""
    deadline = time.monotonic() + 5
    while not (lines := [line for line in server.log if re.search(pattern, line)]):
        assert time.monotonic() < deadline, "".join(server.log)
        time.sleep(0.02)
    assert len(lines) == 1, lines
    return dict(re.findall(r"(\w+)=(\S+)", lines[0]))


def test_each_request_is_logged_once(server: ServerProcess) -> None:
    _, answer = server.post("/v1/completions", {**HELLO, "n": 2})
    fields = log_line(server, answer["id"])
    usage = answer["usage"]
    assert fields["status"] == "200"
    assert fields["sequences"] == "2"
    assert fields["prompt_tokens"] == str(usage["prompt_tokens"])
    assert fields["generated_tokens"] == str(usage["completion_tokens"])
    assert fields["finish"] == "length"
    assert 0 < float(fields["first_token_ms"]) <= float(fields["total_ms"])


def test_refused_requests_are_logged_without_what_they_said(server: ServerProcess) -> None:
    before = len(server.log)
    server.post("/v1/completions", {"prompt": "xyzzy", "temprature": 1})
    fields = log_line(server, r"POST /v1/completions status=400")
    assert float(fields["total_ms"]) >= 0
    assert "xyzzy" not in "".join(server.log[before:])
