"""What the service measures, in Prometheus' form.

Every app has its own registry, so that several can live in one process (tests, benchmarks). Labels have few
values, known beforehand: routes are templates, and no name that a client chose becomes one.
"""

import importlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.watching.logs import lines_lost

_FINE_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
if TYPE_CHECKING:
    from alchemy.training.generate import AdapterModel, Round

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES = tuple(step / 10 for step in range(11))


class Metrics:
    """The service's metrics; attributes are named like the metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

        self.latency = histogram(
            "inference_latency_seconds", "Whole requests, by route.", ("route",), _SECONDS
        )
        self.first_token = histogram(
            "inference_first_token_seconds", "Until the first token of an answer.", (), _SECONDS
        )
        self.token_seconds = histogram(
            "inference_token_seconds", "Per token after the first, of one answer.", (), _FINE_SECONDS
        )
        self.tokens = Counter("inference_tokens", "Tokens sent to clients.", registry=self.registry)
        self.overhead = histogram(
            "hub_overhead_seconds",
            "Of an answer by a language model: the time that was not spent waiting for the model.",
            (),
            _FINE_SECONDS,
        )
        self.stage = histogram("stage_seconds", "Parts of an answer, by stage.", ("stage",), _SECONDS)
        self.relevance = histogram("retrieval_relevance", "Relevance of the best passage.", (), _SHARES)
        self.requests = Counter(
            "http_requests", "Requests, by route and status.", ("route", "status"), registry=self.registry
        )
        self.answers = Counter(
            "answers", "Answers, by outcome: answered, declined, canceled, failed.", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        self.degraded = Counter(
            "degraded", "Answers that went without a feature.", ("feature",), registry=self.registry
        )
        self.logins = Counter(
            "logins", "Tries to log in, by outcome: right, wrong, limited.", ("outcome",),
            registry=self.registry,
        )  # fmt: skip
        self.refused = Counter(
            "requests_refused", "Refused at the door: unrecognized, rate, at_once.", ("reason",),
            registry=self.registry,
        )  # fmt: skip
        self.anomalies = Counter(
            "anomalies", "Unusual ways of asking, by kind.", ("kind",), registry=self.registry
        )
        self.audit_lost = Counter(
            "audit_entries_lost", "Audit entries that could not be written.", registry=self.registry
        )
        self.in_flight = Gauge("questions_in_flight", "Questions in work.", registry=self.registry)
        self.release = Gauge(
            "release_info", "1 for the release that serves.", ("release",), registry=self.registry
        )
        self.releases_held = Gauge("releases_held", "Releases in memory.", registry=self.registry)
        self.load_failures = Counter(
            "release_load_failures", "Releases that could not be loaded.", registry=self.registry
        )
        self.load_seconds = histogram("release_load_seconds", "Loading a release.", (), _SECONDS)
        self.ready = Gauge("alchemy_ready", "1 while a release is loaded.", registry=self.registry)
        self.problem = Gauge(
            "alchemy_problem", "1 while something is the matter with a part; /readyz says what.", ("part",),
            registry=self.registry,
        )  # fmt: skip
        self.canary = Gauge(
            "search_canary_found",
            "Whether the last known question of the release's evaluation was found by the live search.",
            registry=self.registry,
        )
        self.canaries = Counter(
            "search_canaries", "Known questions asked, by result: found, missed.", ("result",),
            registry=self.registry,
        )  # fmt: skip
        self.quality = Gauge(
            "search_quality", "The release's evaluation, by measure.", ("measure",), registry=self.registry
        )
        self.loop_lag = Gauge(
            "event_loop_lag_seconds",
            "The worst delay of the event loop in the last minute.",
            registry=self.registry,
        )
        self._ages = _Ages()
        # Shown at 0 from the start: the step from nothing to 1 is no increase to Prometheus.
        for outcome in ("answered", "declined", "canceled", "failed"):
            self.answers.labels(outcome)
        for result in ("found", "missed"):
            self.canaries.labels(result)
        for collector in (_Memory(), _Process(), self._ages):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)
        self.cache_hits = Counter(
            "inference_cache_hits", "Answers from the cache, by tier.", ("tier",), registry=self.registry
        )
        for tier in ("exact", "semantic"):
            self.cache_hits.labels(tier)
        self.cache_misses = Counter(
            "inference_cache_misses", "Questions that the cache could not answer.", registry=self.registry
        )
        self.cache_checks = Counter(
            "inference_cache_shadow_checks", "Semantic hits that were answered anew.", registry=self.registry
        )
        self.cache_false_hits = Counter(
            "inference_cache_false_hits", "Those whose new answer was another one.", registry=self.registry
        )
        self.cache_false_rate = Gauge(
            "inference_cache_false_hit_rate", "Their share, with its 95 % interval (Wilson).", ("bound",),
            registry=self.registry,
        )  # fmt: skip
        self.cache_entries = Gauge("inference_cache_entries", "Answers held.", registry=self.registry)
        self.cache_bytes = Gauge("inference_cache_bytes", "Bytes of them.", registry=self.registry)
        self.cache_corrupt = Counter(
            "inference_cache_corrupt", "Entries dropped because they were corrupt.", registry=self.registry
        )
        self.generation = GenerationMetrics(self.registry)

    def serving(self, release: str) -> None:
        """Names the release that serves now."""
        self.release.clear()
        self.release.labels(release).set(1)

    def health(self, ready: bool, problems: Mapping[str, str | None]) -> None:
        """Shows readiness, and which of the parts have a problem."""
        self.ready.set(ready)
        for part, problem in problems.items():
            self.problem.labels(part).set(bool(problem))

    def knows(self, evaluated: Mapping[str, float], ages: Callable[[], Mapping[str, float]]) -> None:
        """Shows a release's evaluation, and from now on the ages (seconds) that `ages` tells when scraped."""
        self.quality.clear()
        for measure, value in evaluated.items():
            self.quality.labels(measure).set(value)
        self._ages.tell = ages

    def spent(self, seconds: Mapping[str, float]) -> None:
        """Counts an answer's parts, given the seconds of each, `total` and `waiting` among them."""
        for stage, value in seconds.items():
            self.stage.labels(stage).observe(value)
        if (overhead := hub_overhead(seconds)) is not None:
            self.overhead.observe(overhead)

    def streamed(self, pieces_at: Sequence[float]) -> None:
        """Counts the tokens of one answer, given when each was sent, in seconds since the question."""
        if not pieces_at:
            return
        self.tokens.inc(len(pieces_at))
        self.first_token.observe(pieces_at[0])
        if len(pieces_at) > 1:
            self.token_seconds.observe((pieces_at[-1] - pieces_at[0]) / (len(pieces_at) - 1))

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self.registry)


def hub_overhead(seconds: Mapping[str, float]) -> float | None:
    """Seconds of an answer that the hub itself cost; None for one that waited for no language model.

    `waiting` is the time in which nothing but the model was waited for, `total` the whole answer's.
    """
    waiting = seconds.get("waiting", 0.0)
    return max(seconds["total"] - waiting, 0.0) if waiting else None


class _Ages(Collector):
    """How old what serves is, computed when scraped."""

    def __init__(self) -> None:
        self.tell: Callable[[], Mapping[str, float]] = dict

    def collect(self) -> list[Metric]:
        ages = GaugeMetricFamily(
            "alchemy_age_seconds",
            "Since the release was made, and since its newest raw data came.",
            labels=["of"],
        )
        for name, seconds in self.tell().items():
            ages.add_metric([name], seconds)
        return [ages]


class _Process(Collector):
    """What prometheus_client's own collector of the process leaves out."""

    def collect(self) -> list[Metric]:
        threads = GaugeMetricFamily("process_threads", "Threads of Python.")
        threads.add_metric([], threading.active_count())
        lost = CounterMetricFamily("log_lines_lost", "Log lines that could not be written.")
        lost.add_metric([], lines_lost())
        return [threads, lost]


class GenerationMetrics:
    """What a batch engine measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batch = Histogram(
            "generation_batch_size", "Sequences in one decode step.", buckets=_ROWS, registry=registry
        )
        self.seconds = Histogram(
            "generation_round_seconds", "Work of one round, by phase: prefill, decode.", ("phase",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "generation_first_token_seconds", "From a request to its first text, waiting included.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.tokens = Counter(
            "generation_tokens",
            "Tokens, by kind: prompt, generated (and kept).",
            ("kind",),
            registry=registry,
        )
        self.refused = Counter(
            "generation_refused", "Requests refused because too many waited.", registry=registry
        )
        self.queue = Gauge("generation_queue_length", "Requests that wait for a row.", registry=registry)
        self.slots = Gauge("generation_kv_slots_used", "Rows of keys and values in use.", registry=registry)
        self.memory = Gauge(
            "generation_kv_bytes", "Memory that the rows of keys and values take.", registry=registry
        )
        self.recompiles = Gauge(
            "generation_recompiles", "Graphs that torch.compile made after the warm-up.", registry=registry
        )

    def played(self, played: "Round", model: "AdapterModel") -> None:
        """Counts one round."""
        if played.prefilled:
            self.seconds.labels("prefill").observe(played.prefill_s)
            self.tokens.labels("prompt").inc(played.prefilled)
        self.tokens.labels("generated").inc(played.kept)
        if played.rows:
            self.seconds.labels("decode").observe(played.decode_s)
            self.batch.observe(played.rows)
        self.queue.set(model.waiting)
        self.slots.set(model.running)
        self.memory.set(model.kv_bytes)
        self.recompiles.set(model.recompiles)


class _Memory(Collector):
    """`gpu_memory_usage_bytes`, read when scraped: per CUDA device, or this process' RSS as device="cpu"."""

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily(
            "gpu_memory_usage_bytes",
            'Memory of the models: allocated per GPU; without one, resident memory as device="cpu".',
            labels=["device"],
        )
        for device, used in _memory().items():
            family.add_metric([device], used)
        return [family]


def _memory() -> dict[str, float]:
    # torch is asked only where a model has already loaded it: importing it costs seconds.
    if "torch" in sys.modules:
        cuda = importlib.import_module("torch").cuda
        if cuda.is_available():
            return {f"cuda:{n}": float(cuda.memory_allocated(n)) for n in range(cuda.device_count())}
    return {"cpu": float(_resident())}


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no /proc: macOS
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")
