"""What the service measures, in Prometheus' form.

Every app has its own registry, so that several can live in one process (tests, benchmarks).
"""

import importlib
import os
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
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
        self.in_flight = Gauge("questions_in_flight", "Questions in work.", registry=self.registry)
        self.release = Gauge(
            "release_info", "1 for the release that serves.", ("release",), registry=self.registry
        )
        self.releases_held = Gauge("releases_held", "Releases in memory.", registry=self.registry)
        self.load_failures = Counter(
            "release_load_failures", "Releases that could not be loaded.", registry=self.registry
        )
        self.load_seconds = histogram("release_load_seconds", "Loading a release.", (), _SECONDS)
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
        self.registry.register(_Memory())

    def serving(self, release: str) -> None:
        """Names the release that serves now."""
        self.release.clear()
        self.release.labels(release).set(1)

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self.registry)


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
