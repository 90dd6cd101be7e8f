"""The Spark engine of `cleaned_corpus`: `clean_piece` as `mapInArrow` over a listing.

In a process that has Spark it is `SparkEngine`; without Dagster it is a main:

    spark-submit [--master ...] spark_jobs/clean.py --store s3://lora-data --endpoint http://...

Tasks read and write through our store, so Spark needs no S3 jars, and a retried or speculative task writes
the same bytes to the same address. Rows that travel are listings and digests, never text.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from alchemy.corpus import Cleaned, CleanJob, Piece, clean_piece, clean_pieces, find_cleaned, pieces_of
from alchemy.engine import EngineName
from alchemy.errors import ContractBroken
from alchemy.listing import list_raw
from alchemy.records import SOURCES, from_line, to_line
from alchemy.settings import load_settings
from alchemy.store import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TASK_BYTES = 4 << 20  # raw bytes that one task aims for


class SparkEngine:
    """Cleans on a Spark session: the given one, or one that is made for the call and stopped after it."""

    name: EngineName = "spark"

    def __init__(self, master: str, session: "SparkSession | None" = None) -> None:
        self.master = master
        self.session = session

    def clean(self, job: CleanJob, pieces: Sequence[Piece]) -> Iterator[Cleaned]:
        if not pieces:
            return
        session = self.session or start_session(self.master)
        try:
            yield from clean_on_spark(session, job, pieces)
        finally:
            if self.session is None:
                session.stop()


def clean_on_spark(session: "SparkSession", job: CleanJob, pieces: Sequence[Piece]) -> Iterator[Cleaned]:
    """Runs the job, all tasks at once as far as there are cores, and then reads the summaries they left."""
    # Pieces are dealt out largest first, round robin, so that tasks hold about the same bytes.
    total = sum(piece.end - piece.start for piece in pieces)
    tasks = min(len(pieces), max(session.sparkContext.defaultParallelism * 2, math.ceil(total / _TASK_BYTES)))
    ordered = sorted(pieces, key=lambda piece: (piece.start - piece.end, piece.order))
    groups = [b"".join(map(to_line, ordered[start::tasks])) for start in range(tasks)]
    rows = session.sparkContext.parallelize([(group,) for group in groups], tasks)
    frame = session.createDataFrame(rows, "pieces binary")

    def clean(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for group in batch.column(0):
                for line in group.as_py().splitlines():
                    cleaned = clean_piece(job, from_line(Piece, line))
                    yield pa.record_batch([[cleaned.digest]], names=["digest"])

    for row in frame.mapInArrow(clean, "digest string").collect():
        cleaned = find_cleaned(job.store, row.digest)
        if cleaned is None:
            raise ContractBroken(f"a Spark task said that it stored {row.digest}, and it is not in the store")
        yield cleaned


def start_session(master: str) -> "SparkSession":
    """A session whose Python workers are this interpreter. Needs Java 17 or newer."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName("data-alchemy clean").config("spark.ui.enabled", "false")
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # under spark-submit, its own --master holds
        builder = builder.master(master)
    return builder.getOrCreate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="folder or s3://bucket; default: ALCHEMY_STORE")
    parser.add_argument("--endpoint", help="S3 endpoint; default: S3_ENDPOINT")
    parser.add_argument("--master", help="master URL without spark-submit; default: SPARK_MASTER")
    arguments = parser.parse_args()
    settings = load_settings()
    store = Store(arguments.store or settings.store_url, endpoint=arguments.endpoint or settings.s3_endpoint)
    job = CleanJob(store.url, store.endpoint, settings.clean, settings.pseudonym_salt)
    pieces = pieces_of(raw for source in SOURCES for raw in list_raw(job.store, source))
    engine = SparkEngine(arguments.master or settings.spark_master)
    cleaned = documents = rejected = 0
    for one, new in clean_pieces(job, pieces, engine.clean, lambda done, total: None):
        cleaned += new
        documents += len(one.entries.ids)
        rejected += one.rejected
    print(f"{len(pieces)} pieces, {cleaned} of them new: {documents} documents, {rejected} rejected")


if __name__ == "__main__":
    main()
