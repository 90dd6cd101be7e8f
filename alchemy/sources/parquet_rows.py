"""Parquet files, one row group after the other; the file is the table."""

import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.reasons import reject, rejected_by
from alchemy.sources.rows import Table, Value, describe, row_draft

PARQUET_MAGIC = b"PAR1"
_BATCH = 500  # rows that are in memory at once
_MAX_GROUP = 2 << 30  # bytes of a row group's columns when unpacked
_MAX_COLUMNS = 2_000


def read_parquet(raw: RawObject, path: Path, name: str) -> Iterator[Draft | Rejected]:
    """Drafts of all rows; a row group that is damaged or too large is one rejected row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        detail = (
            f"The Parquet file has no readable footer, so it was cut or is damaged ({type(error).__name__})."
        )
        yield reject(raw, "truncated", detail)
        return
    with file:
        if len(schema.names) > _MAX_COLUMNS or len(set(schema.names)) != len(schema.names):
            detail = f"The table has more than {_MAX_COLUMNS} columns, or two columns of one name."
            yield reject(raw, "wrong_shape", detail)
            return
        if not file.metadata.num_rows:
            yield reject(raw, "empty", "The table has no rows.")
            return
        stem = name.rpartition("/")[2].rpartition(".")[0] or name
        numeric = [one.name for one in schema if _is_number(one.type)]
        table = describe(stem, schema.names, numeric=numeric)
        before = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            yield from _group(raw, file, table, name, group, before)
            before += rows


def _group(
    raw: RawObject, file: Any, table: Table, name: str, group: int, before: int
) -> Iterator[Draft | Rejected]:
    locator = f"row group {group + 1}"
    size = file.metadata.row_group(group).total_byte_size
    if size > _MAX_GROUP:
        yield reject(raw, "too_large", f"The row group unpacks to {size} bytes.", locator=locator)
        return
    number = before
    try:
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], use_threads=False):
            columns = [column.to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                number += 1
                yield _row(raw, table, values, name, number)
    except Exception as error:  # pyarrow raises what its decompressors and converters raise
        detail = f"The row group cannot be read to its end ({type(error).__name__})."
        yield reject(raw, "broken", detail, locator=f"{locator} after row {number}")


def _row(raw: RawObject, table: Table, values: tuple[Any, ...], name: str, number: int) -> Draft | Rejected:
    locator = f"row {number}"
    try:
        plain = [_plain(value) for value in values]
        return row_draft(table, plain, file=name, number=number, locator=locator, per_file=True)
    except Exception as error:
        return rejected_by(error, raw, locator=locator, sample=repr(values)[:400])


def _plain(value: Any) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, int | float | str):
        return value if not isinstance(value, bool) else str(value).lower()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None  # binary data
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str) if value else None
    return str(value)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
