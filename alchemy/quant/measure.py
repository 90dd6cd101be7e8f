"""The numbers of documents as wide tables, `metrics.parquet`: the input of the quant stages.

One table is made from one part of the corpus, and all have the same columns, so a change of one part is a
change of one table.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from alchemy.records import Document, read_lines

ID_COLUMNS = ("document_id", "source", "kind")
_CELLS_PER_GROUP = 2_000_000  # 16 MB of doubles
_PATTERN = re.compile(r"\*|\^.*\$", re.DOTALL)


def write_metrics(part: Path, target: Path, names: Sequence[str]) -> dict[str, int]:
    """Writes a table of the documents of one part: a row for each, a nullable Float64 column per metric.

    A number that is not finite becomes null. A metric called like one of `ID_COLUMNS`, or like a pattern that
    Polars would take for several columns ("*", "^.*$"), is written as `metric_<name>`. Equal
    documents in equal order give equal bytes; memory does not follow their number.

    Args:
        part: JSON lines of documents.
        target: The Parquet file.
        names: All metrics of the corpus, in the order of their columns.

    Returns:
        `rows`, and how many of them are `measured`: with any number.
    """
    columns = [f"metric_{name}" if name in ID_COLUMNS or _PATTERN.fullmatch(name) else name for name in names]
    schema = dict.fromkeys(ID_COLUMNS, pl.String) | dict.fromkeys(columns, pl.Float64)
    rows = measured = 0
    with pq.ParquetWriter(target, pl.DataFrame(schema=schema).to_arrow().schema, compression="zstd") as out:
        for group in _groups(read_lines(Document, part), names):
            frame = pl.DataFrame(group, schema=schema, orient="row")
            out.write_table(frame.to_arrow())
            rows += frame.height
            measured += sum(any(value is not None for value in row[len(ID_COLUMNS) :]) for row in group)
    return {"rows": rows, "measured": measured}


def _groups(documents: Iterator[Document], names: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of one row group each."""
    size = max(1024, min(32_768, _CELLS_PER_GROUP // (len(names) + 1)))
    rows: list[tuple[Any, ...]] = []
    for document in documents:
        values = (_finite(document.metrics.get(name)) for name in names)
        rows.append((document.id, document.source, document.kind, *values))
        if len(rows) == size:
            yield rows
            rows = []
    if rows:
        yield rows


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
