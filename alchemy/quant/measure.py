"""The numbers of every document as one wide table, `metrics.parquet`: the input of the quant stages.

Which metrics exist is known only after the last document, so the numbers go through a spool file first:
the documents are read once, and memory follows the number of columns, never the number of documents.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import orjson
import polars as pl
import pyarrow.parquet as pq

from alchemy.records import Document

ID_COLUMNS = ("document_id", "source", "kind")
ROWS_PER_PART = 262_144
_CELLS_PER_GROUP = 2_000_000  # 16 MB of doubles


def write_metrics(documents: Iterable[Document], folder: Path) -> dict[str, Any]:
    """Writes `part-*.parquet`: one row per document, a nullable Float64 column per metric, names sorted.

    A number that is not finite becomes null. A metric called like one of `ID_COLUMNS` is written as
    `metric_<name>`. Equal documents in equal order give equal bytes.
    """
    names: set[str] = set()
    sources: Counter[str] = Counter()
    measured = 0
    with tempfile.TemporaryFile(prefix="alchemy-metrics-") as spool:
        for document in documents:
            values = {
                f"metric_{name}" if name in ID_COLUMNS else name: float(value)
                for name, value in document.metrics.items()
                if math.isfinite(value)
            }
            names.update(values)
            sources[document.source] += 1
            measured += bool(values)
            spool.write(orjson.dumps([document.id, document.source, document.kind, values]) + b"\n")
        spool.seek(0)
        rows = sum(sources.values())
        _write_parts(_groups(spool, sorted(names)), folder, rows)
    return {
        "rows": rows,
        "columns": len(names),
        "documents_with_metrics": measured,
        "by_source": dict(sorted(sources.items())),
    }


def _groups(spool: IO[bytes], names: list[str]) -> Iterator[pl.DataFrame]:
    """The spooled rows as frames of one row group each; at least one, empty where nothing was spooled."""
    schema = dict.fromkeys(ID_COLUMNS, pl.String) | dict.fromkeys(names, pl.Float64)
    size = max(1024, min(32_768, _CELLS_PER_GROUP // (len(names) + 1)))
    size = 1 << (size.bit_length() - 1)  # a power of two, so that groups fill a part exactly
    rows: list[tuple[Any, ...]] = []
    for line in spool:
        document_id, source, kind, values = orjson.loads(line)
        rows.append((document_id, source, kind, *map(values.get, names)))
        if len(rows) == size:
            yield pl.DataFrame(rows, schema=schema, orient="row")
            rows = []
    if rows or not spool.tell():
        yield pl.DataFrame(rows, schema=schema, orient="row")


def _write_parts(groups: Iterator[pl.DataFrame], folder: Path, rows: int) -> None:
    writer: pq.ParquetWriter | None = None
    part = written = 0
    try:
        for group in groups:
            table = group.to_arrow()
            if writer is None:
                path = folder / f"part-{part:05d}.parquet"
                writer = pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
            written += group.height
            if written % ROWS_PER_PART == 0 and written < rows:
                writer.close()
                writer, part = None, part + 1
    finally:
        if writer is not None:
            writer.close()
