"""The engines that run `clean_piece` over many pieces of raw objects, and the rule that picks one.

Both take the same job and leave the same results; this module holds the Python engine (a process pool on
one machine). The Spark engine is `spark_jobs.clean`.
"""

import multiprocessing
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Literal, Protocol

from alchemy.corpus import Cleaned, CleanJob, Piece, clean_piece

EngineName = Literal["python", "spark"]
_INLINE_BYTES = 1 << 20  # less is done before a worker process has started
_AHEAD = 4  # pieces that wait for each worker


class Engine(Protocol):
    """Cleans pieces, in any order, and yields each as it is done."""

    name: EngineName

    def clean(self, job: CleanJob, pieces: Sequence[Piece]) -> Iterator[Cleaned]: ...


class PythonEngine:
    """A pool of processes; no Java. Memory is bounded by one piece per worker.

    Few pieces are in work at once: a caller that is slow to take results slows the workers down.
    """

    name: EngineName = "python"

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def clean(self, job: CleanJob, pieces: Sequence[Piece]) -> Iterator[Cleaned]:
        if self.workers == 1 or len(pieces) == 1 or _total(pieces) < _INLINE_BYTES:
            for piece in pieces:
                yield clean_piece(job, piece)
            return
        # Spawned, not forked: the caller may hold threads (Dagster, obstore's runtime).
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, context, initializer=_start, initargs=(job,)) as pool:
            largest_first = sorted(pieces, key=lambda piece: (piece.start - piece.end, piece.order))
            running: set[Future[Cleaned]] = set()
            try:
                for piece in largest_first:
                    if len(running) == self.workers * _AHEAD:
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
                    running.add(pool.submit(_clean, piece))
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
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


def _clean(piece: Piece) -> Cleaned:
    assert _job is not None
    return clean_piece(_job, piece)


def _total(pieces: Sequence[Piece]) -> int:
    return sum(piece.end - piece.start for piece in pieces)
