"""What the service measures, in Prometheus' form.

Every app has its own registry, so that several can live in one process (tests, benchmarks).
"""

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

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
        self.generation = GenerationMetrics(self.registry)
        self.registry.register(_Memory())

    def serving(self, release: str) -> None:
        """Names the release that serves now."""
        self.release.clear()
        self.release.labels(release).set(1)

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self.registry)


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
            "generation_tokens", "Tokens, by kind: prompt, generated.", ("kind",), registry=registry
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
        if played.rows:
            self.seconds.labels("decode").observe(played.decode_s)
            self.tokens.labels("generated").inc(played.rows)
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
