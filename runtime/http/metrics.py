"""What Prometheus scrapes, by the names that vLLM's dashboards know, prefixed `oi:`.

Counters and gauges of the engine are read from its last message when scraped; the rest is observed as requests end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from oi.runtime.generation import Output
from oi.runtime.messages import Stats

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series of each, which nobody charts

_FIRST_TOKEN = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
)
_TOKEN = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.0075,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1,
    2.5,
    5,
)
_REQUEST = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)
_COUNT = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)


class Metrics:
    def __init__(self, model: str, stats: Callable[[], Stats | None]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(model, stats))

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            found = Histogram(f"oi:{name}", help, ["model_name"], registry=self._registry, buckets=buckets)
            return found.labels(model)

        self._first_token = histogram("time_to_first_token_seconds", "Arrival to first token.", _FIRST_TOKEN)
        self._interval = histogram("inter_token_latency_seconds", "Between tokens of a sequence.", _TOKEN)
        self._per_token = histogram("request_time_per_output_token_seconds", "A sequence's mean.", _TOKEN)
        self._request = histogram("e2e_request_latency_seconds", "Arrival to last token.", _REQUEST)
        self._prompt = histogram("request_prompt_tokens", "Prompt tokens of a sequence.", _COUNT)
        self._generated = histogram("request_generation_tokens", "Generated tokens of a sequence.", _COUNT)
        self._success = Counter(
            "oi:request_success", "Finished sequences.", ["model_name", "finished_reason"], registry=self._registry
        )
        self._model = model

    def observe_interval(self, seconds: float) -> None:
        self._interval.observe(seconds)

    def observe_output(self, output: Output, arrived_at: float) -> None:
        """Of a sequence that has finished, or was aborted."""
        self._success.labels(self._model, output.finish_reason or "abort").inc()
        if not output.generated:
            return
        self._first_token.observe(output.first_at - arrived_at)
        self._request.observe(output.last_at - arrived_at)
        self._prompt.observe(len(output.submit.prompt))
        self._generated.observe(output.generated)
        if output.generated > 1:
            self._per_token.observe((output.last_at - output.first_at) / (output.generated - 1))

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    def __init__(self, model: str, stats: Callable[[], Stats | None]) -> None:
        self._model = model
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        s = self._stats()
        if s is None:
            return
        yield self._gauge("num_requests_running", "Sequences that run.", s.running)
        yield self._gauge("num_requests_waiting", "Sequences that wait for their turn.", s.waiting)
        yield self._gauge("kv_cache_usage_perc", "Pages held by running sequences; 1 is all.", _usage(s))
        yield self._gauge("kv_cache_prefix_pages", "Free pages that hold a prefix.", s.pages_cached)
        yield self._counter("prefix_cache_queries", "Prompt tokens looked up, once a sequence.", s.prefix_queries)
        yield self._counter("prefix_cache_hits", "Prompt tokens found, once a sequence.", s.prefix_hits)
        yield self._counter("prompt_tokens", "Prompt tokens computed.", s.prompt_tokens)
        yield self._counter("generation_tokens", "Tokens generated.", s.generated_tokens)
        yield self._counter("num_preemptions", "Sequences put back to make room.", s.preemptions)
        yield self._counter("engine_steps", "Steps of the engine.", s.steps)

    def _gauge(self, name: str, help: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"oi:{name}", help, labels=["model_name"])
        family.add_metric([self._model], value)
        return family

    def _counter(self, name: str, help: str, value: float) -> Metric:
        family = CounterMetricFamily(f"oi:{name}", help, labels=["model_name"])
        family.add_metric([self._model], value)
        return family


def _usage(stats: Stats) -> float:
    return stats.pages_used / stats.pages_total if stats.pages_total else 0.0
