"""Scout: what is in a Parquet data set, from its footers alone.

Names, types, row and null counts, extremes and sizes stand in the last kilobytes of each file; no data
page is read, so scouting a terabyte costs as much as scouting a megabyte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alchemy.errors import BadInput


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column over all files; what some writer left out of its footer is None."""

    name: str
    type: str  # Arrow's name of it: double, int64, string ...
    numeric: bool
    text: bool
    nulls: int | None
    minimum: Any
    maximum: Any
    bytes: int  # compressed


@dataclass(frozen=True, slots=True)
class Profile:
    """A data set as its footers describe it."""

    files: int
    rows: int
    bytes: int  # of the column data, compressed
    columns: tuple[ColumnProfile, ...]

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric columns, sorted."""
        return tuple(sorted(column.name for column in self.columns if column.numeric))


def scout(paths: Sequence[Path]) -> Profile:
    """Profiles Parquet files of one schema. Raises BadInput on none, a broken footer, or two schemas."""
    if not paths:
        raise BadInput("no Parquet file to scout; run the metrics stage first")
    footers = [_footer(path) for path in paths]
    schema = footers[0].schema.to_arrow_schema()
    for path, footer in zip(paths, footers, strict=True):
        if not footer.schema.to_arrow_schema().equals(schema):
            raise BadInput(f"{path}: its columns are not those of {paths[0]}; all parts need one schema")
    found = {field.name: _Footings() for field in schema}
    for footer in footers:
        for group_index in range(footer.num_row_groups):
            group = footer.row_group(group_index)
            for index in range(group.num_columns):
                chunk = group.column(index)
                path_in_schema = chunk.path_in_schema
                # A nested column has one chunk per leaf, named "column.list.element".
                name = path_in_schema if path_in_schema in found else path_in_schema.split(".")[0]
                found[name].add(chunk)
    columns = tuple(found[field.name].profile(field) for field in schema)
    return Profile(
        files=len(paths),
        rows=sum(footer.num_rows for footer in footers),
        bytes=sum(column.bytes for column in columns),
        columns=columns,
    )


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: not a readable Parquet file ({error})") from None


class _Footings:
    """What the footers of all row groups say about one column."""

    def __init__(self) -> None:
        self.nulls: int | None = 0
        self.bytes = 0
        self.low: list[Any] = []
        self.high: list[Any] = []
        self.complete = True  # whether no row group leaves its extremes out

    def add(self, chunk: pq.ColumnChunkMetaData) -> None:
        self.bytes += chunk.total_compressed_size
        statistics = chunk.statistics
        if statistics is None or not statistics.has_null_count:
            self.nulls = None
        elif self.nulls is not None:
            self.nulls += statistics.null_count
        if statistics is not None and statistics.has_min_max:
            self.low.append(statistics.min)
            self.high.append(statistics.max)
        elif statistics is None or statistics.null_count != chunk.num_values:
            self.complete = False

    def profile(self, field: pa.Field) -> ColumnProfile:
        kind = field.type
        return ColumnProfile(
            name=field.name,
            type=str(kind),
            numeric=pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind),
            text=pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind),
            nulls=self.nulls,
            minimum=min(self.low) if self.low and self.complete else None,
            maximum=max(self.high) if self.high and self.complete else None,
            bytes=self.bytes,
        )
