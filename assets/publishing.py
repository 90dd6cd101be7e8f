"""How every asset answers: the request, the work, one metadata vocabulary.

An asset module says what is made from what; this module does what all of them share. Not for domain
logic: that is in `alchemy`.
"""

import base64
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psutil
from dagster import AssetExecutionContext, DataVersion, MaterializeResult, MetadataValue

from alchemy.artifacts import Artifact, Artifacts, Draft, Request
from alchemy.parts import read_parts

Inputs = Mapping[str, Artifact]
BuildFrom = Callable[[Draft, Inputs], dict[str, Any]]
Describe = Callable[[Artifact], Mapping[str, Any]]
Progress = Callable[[int, int], None]
R = TypeVar("R")

_SAMPLE_ROWS = 10
_PROGRESS_SECONDS = 5.0


def publish(
    context: AssetExecutionContext,
    artifacts: Artifacts,
    build: BuildFrom,
    *,
    inputs: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    asset: str | None = None,
    describe: Describe | None = None,
) -> MaterializeResult:
    """Materializes the asset from the latest versions of its inputs and reports it in the shared vocabulary.

    `build` gets an empty draft and the inputs, resolved once: what it reads is what the request names. It is
    called only when the request (inputs, code version, parameters) is not the one that the latest version
    answers. `describe` adds metadata (samples, pictures) read from the artifact itself, so
    that a reused version shows the same.
    """
    name = asset or "/".join(context.asset_key.path)
    used = {one: artifacts.latest(one) for one in inputs}
    request = Request(
        asset=name,
        inputs={one: artifact.version for one, artifact in used.items()},
        code_version=context.assets_def.code_versions_by_key[context.asset_key] or "",
        parameters=dict(parameters or {}),
        run_id=context.run.run_id,
    )
    with Measurement() as measured:
        done = artifacts.materialize_draft(request, lambda draft: build(draft, used))
    artifact = done.artifact
    return MaterializeResult(
        data_version=DataVersion(artifact.version),
        metadata={
            "uri": f"{artifacts.store.url.rstrip('/')}/{artifact.folder}",
            "sha256": artifact.version,
            "dagster/row_count": int(artifact.metrics.get("rows", 0)),
            "bytes": artifact.size,
            "seconds": round(measured.seconds, 3),
            "peak_memory_mb": round(measured.peak_bytes / 1e6),
            "reused": done.reused,
            **{key: value for key, value in artifact.metrics.items() if key != "rows"},
            **(describe(artifact) if describe else {}),
        },
    )


def log_progress(context: AssetExecutionContext, what: str) -> Progress:
    """A callback (done, total) that logs at most every few seconds, with the time that is left.

    The time is taken from the first call on: what was done before it may have been done long ago, by a run
    that was killed. When `done` falls back, another round has begun, and the time is taken anew.
    """
    last = time.monotonic()
    started, first, before = 0.0, 0, -1

    def report(done: int, total: int) -> None:
        nonlocal started, first, last, before
        now = time.monotonic()
        if before < 0 or done < before:
            started, first = now, done
        before = done
        if now - last < _PROGRESS_SECONDS or done == first:
            return
        last = now
        left = (now - started) / (done - first) * (total - done)
        context.log.info(
            f"{what}: {done:,} of {total:,} ({100 * done / max(total, 1):.0f} %), {left:.0f} s left"
        )

    return report


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> MetadataValue:
    """At most ten rows as a Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows[:_SAMPLE_ROWS]:
        cells = (" ".join(str(row.get(column, "")).split())[:160].replace("|", "\\|") for column in columns)
        lines.append("| " + " | ".join(cells) + " |")
    return MetadataValue.md("\n".join(lines))


def head(artifacts: Artifacts, artifact: Artifact, cls: type[R], prefix: str = "part-") -> list[R]:
    """The first ten records of an artifact's JSON-lines files."""
    return list(itertools.islice(read_parts(cls, artifacts.parts(artifact, prefix)), _SAMPLE_ROWS))


def picture(png: bytes, alt: str) -> MetadataValue:
    """An inline PNG that the UI shows."""
    return MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


class Measurement:
    """Wall time, and peak resident memory of this process and its children, sampled five times a second."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Measurement":
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.seconds = time.monotonic() - self._started

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            self.peak_bytes = max(self.peak_bytes, _resident(process))
            if self._stop.wait(0.2):
                return


def _resident(process: psutil.Process) -> int:
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:  # it ended between listing and asking
            continue
    return int(total)
