"""The engines that run `clean_object` over many raw objects, and the rule that picks one.

Both take the same job and leave the same results; this module holds the Python engine (a process pool on
one machine). The Spark engine is `spark_jobs.clean`.
"""

import multiprocessing
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Literal, Protocol

from alchemy.corpus import Cleaned, CleanJob, clean_object
from alchemy.records import RawObject

EngineName = Literal["python", "spark"]
_INLINE_OBJECTS = 4  # fewer are done before a worker process has started


class Engine(Protocol):
    """Cleans objects, in any order, and yields each as it is done."""

    name: EngineName

    def clean(self, job: CleanJob, objects: Sequence[RawObject]) -> Iterator[Cleaned]: ...


class PythonEngine:
    """A pool of processes; no Java. Memory is bounded by one object per worker."""

    name: EngineName = "python"

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def clean(self, job: CleanJob, objects: Sequence[RawObject]) -> Iterator[Cleaned]:
        if self.workers == 1 or len(objects) < _INLINE_OBJECTS:
            for raw in objects:
                yield clean_object(job, raw)
            return
        # Spawned, not forked: the caller may hold threads (Dagster, obstore's runtime).
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, context, initializer=_start, initargs=(job,)) as pool:
            largest_first = sorted(objects, key=lambda raw: (-raw.size, raw.key))
            futures = [pool.submit(_clean, raw) for raw in largest_first]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def pick_engine(
    mode: Literal["auto", "python", "spark"],
    *,
    raw_bytes: int,
    spark_min_bytes: int,
    spark_master: str,
    system: str | None = None,
    has_java: bool | None = None,
) -> EngineName:
    """The rule of the contract (X2): `auto` is Spark only on Linux with Java, for much data or a cluster."""
    if mode != "auto":
        return mode
    linux = (system or platform.system()) == "Linux"
    java = java_available() if has_java is None else has_java
    cluster = not spark_master.startswith("local")
    return "spark" if linux and java and (cluster or raw_bytes > spark_min_bytes) else "python"


def java_available() -> bool:
    return bool(shutil.which("java") or os.environ.get("JAVA_HOME"))


_job: CleanJob | None = None


def _start(job: CleanJob) -> None:
    global _job  # noqa: PLW0603 - a worker process keeps its job, store connection and rules
    _job = job


def _clean(raw: RawObject) -> Cleaned:
    assert _job is not None
    return clean_object(_job, raw)
