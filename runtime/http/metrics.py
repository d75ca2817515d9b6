"""What Prometheus scrapes: vLLM's names with vLLM's meanings, so that its dashboards and gateways work unchanged.

What vLLM has no name for begins with `oi:`. The engine's counters and gauges are read from its last message when
scraped; latencies are observed here, as clients see them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from oi.runtime.generation import Output
from oi.runtime.http.histogram import Histogram
from oi.runtime.http.request_log import how_it_ended
from oi.runtime.messages import Ready, Stats

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FIRST_TOKEN = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5),
    *(0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
_TOKEN = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1),
    *(0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80),
)
_REQUEST = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_COUNT = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics(Collector):
    def __init__(self, model: str) -> None:
        self.ready: Ready | None = None
        """Once it is known."""
        self.stats: Stats | None = None
        """The engine's last word."""
        self.first_token = Histogram(_FIRST_TOKEN, fine=True)
        self.interval = Histogram(_TOKEN, fine=True)
        self.request = Histogram(_REQUEST, fine=True)
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0}
        """Sequences by how they ended."""
        self._per_token = Histogram(_TOKEN)
        self._decode = Histogram(_REQUEST)
        self._prompt = Histogram(_COUNT)
        self._generated = Histogram(_COUNT)
        self._step_tokens = Histogram(_STEP_TOKENS)
        self._step_seconds = Histogram(_TOKEN)
        self._labels = {"model_name": model, "engine": "0"}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def observe_stats(self, stats: Stats) -> None:
        """Of a step, or a sign of life."""
        before, self.stats = self.stats, stats
        if before is not None and stats.steps > before.steps:
            generated = stats.generated_tokens - before.generated_tokens
            self._step_tokens.observe(stats.prompt_tokens - before.prompt_tokens + generated)
            self._step_seconds.observe(stats.step_seconds)

    def observe_output(self, output: Output, arrived_at: float) -> None:
        """Of a sequence that has finished, or was aborted. `arrived_at`: `time.perf_counter` of its request."""
        self.finished[how_it_ended(output)] += 1
        if not output.generated:
            return
        self.request.observe(output.last_at - arrived_at)
        self._decode.observe(output.last_at - output.first_at)
        self._prompt.observe(len(output.submit.prompt))
        self._generated.observe(output.generated)
        if output.generated > 1:
            self._per_token.observe((output.last_at - output.first_at) / (output.generated - 1))

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        yield from self._histograms()
        yield self._counter("vllm:request_success", "Finished sequences.", self.finished, "finished_reason")
        if self.ready is not None:
            info = {"block_size": self.ready.page_size, "num_gpu_blocks": self.ready.pages_total}
            family = GaugeMetricFamily("vllm:cache_config_info", "The KV cache.", labels=[*self._labels, *info])
            family.add_metric([*self._labels.values(), *map(str, info.values())], 1)
            yield family
        if self.stats is not None:
            yield from self._engine(self.stats)

    def _histograms(self) -> Iterable[Metric]:
        yield self._histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", self.first_token)
        yield self._histogram("vllm:inter_token_latency_seconds", "Between a sequence's tokens.", self.interval)
        older = "The same, by its older name."
        yield self._histogram("vllm:time_per_output_token_seconds", older, self.interval)
        per_token = "A sequence's mean time between tokens."
        yield self._histogram("vllm:request_time_per_output_token_seconds", per_token, self._per_token)
        yield self._histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.", self.request)
        yield self._histogram("vllm:request_decode_time_seconds", "First to last token.", self._decode)
        yield self._histogram("vllm:request_prompt_tokens", "Prompt tokens of a sequence.", self._prompt)
        yield self._histogram("vllm:request_generation_tokens", "Generated tokens of a sequence.", self._generated)
        yield self._histogram("vllm:iteration_tokens_total", "Tokens computed in a step.", self._step_tokens)
        yield self._histogram("oi:step_seconds", "Duration of a step.", self._step_seconds)

    def _engine(self, s: Stats) -> Iterable[Metric]:
        yield self._gauge("vllm:num_requests_running", "Sequences that run.", s.running)
        yield self._gauge("vllm:num_requests_waiting", "Sequences that wait for their turn.", s.waiting)
        usage = _share(s.pages_used, s.pages_total)
        yield self._gauge("vllm:kv_cache_usage_perc", "Pages held by running sequences; 1 is all.", usage)
        yield self._gauge("oi:kv_cache_prefix_pages", "Free pages that hold a prefix.", s.pages_cached)
        host = _share(s.host_pages_used, s.host_pages_total)
        yield self._gauge("vllm:cpu_cache_usage_perc", "The host tier's pages in use; 1 is all.", host)
        yield self._gauge("oi:host_pages", "Pages that the host tier has room for.", s.host_pages_total)
        queries = "Prompt tokens looked up, once a sequence."
        yield self._counter("vllm:prefix_cache_queries", queries, s.prefix_queries)
        yield self._counter("vllm:prefix_cache_hits", "Prompt tokens found, once a sequence.", s.prefix_hits)
        prompt = "Prompt tokens, computed or found."
        yield self._counter("vllm:prompt_tokens", prompt, s.prompt_tokens + s.prefix_hits + s.host_hits)
        sources = {
            "local_compute": s.prompt_tokens,
            "local_cache_hit": s.prefix_hits,
            "external_kv_transfer": s.host_hits,
        }
        yield self._counter("vllm:prompt_tokens_by_source", prompt, sources, "source")
        yield self._counter("vllm:generation_tokens", "Tokens generated.", s.generated_tokens)
        yield self._counter("vllm:num_preemptions", "Sequences put back to make room.", s.preemptions)
        yield self._counter("oi:steps", "Steps of the engine.", s.steps)
        if s.host_pages_total:
            yield from self._host(s)

    def _host(self, s: Stats) -> Iterable[Metric]:
        missed = "Prompt tokens that the device had not, looked up on the host."
        yield self._counter("vllm:external_prefix_cache_queries", missed, s.prefix_queries - s.prefix_hits)
        yield self._counter("vllm:external_prefix_cache_hits", "Prompt tokens found on the host.", s.host_hits)
        copied = {"GPU_to_CPU": s.saved_bytes, "CPU_to_GPU": s.restored_bytes}
        yield self._counter("vllm:kv_offload_total_bytes", "Pages copied, in bytes.", copied, "transfer_type")
        seconds = {"GPU_to_CPU": s.save_seconds, "CPU_to_GPU": s.restore_seconds}
        yield self._counter("vllm:kv_offload_total_time", "Of those copies, in seconds.", seconds, "transfer_type")

    def _gauge(self, name: str, help: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, help, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, help: str, value: float | Mapping[str, float], label: str | None = None) -> Metric:
        """With `label`, `value` holds one count for each of its values."""
        family = CounterMetricFamily(name, help, labels=[*self._labels, *([label] if label else [])])
        if isinstance(value, Mapping):
            for kind, count in value.items():
                family.add_metric([*self._labels.values(), kind], count)
        else:
            family.add_metric(list(self._labels.values()), value)
        return family

    def _histogram(self, name: str, help: str, values: Histogram) -> Metric:
        family = HistogramMetricFamily(name, help, labels=list(self._labels))
        buckets = [(_number(bound), count) for bound, count in values.cumulative()]
        family.add_metric(list(self._labels.values()), buckets, values.sum)
        return family


def _number(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
