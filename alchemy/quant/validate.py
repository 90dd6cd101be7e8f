"""Validator: whether `metrics.parquet` is what every stage after it takes for granted.

The schema is written with dataframely. Rules are counted over batches of rows, except that an id may occur
only once, which is counted over all rows. Nothing is mended or dropped here: what stands in the file came
from our own stages, so a broken rule is their bug.
"""

import types
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from alchemy.errors import BadInput
from alchemy.quant.measure import ID_COLUMNS
from alchemy.quant.scout import Profile, scout
from alchemy.records import SOURCES

if TYPE_CHECKING:
    import dataframely as dy

UNIQUE = "document_id|unique"
_SHARES = frozenset({"code_share"})  # our own; a customer's column of such a name may be in percent
_CELLS_AT_ONCE = 4_000_000  # 32 MB of doubles


@dataclass(frozen=True, slots=True)
class Validation:
    """How many rows break which rule; a rule is `column|rule`, as dataframely names it."""

    rows: int
    columns: int
    broken: dict[str, int]  # rules that no row breaks are left out

    @property
    def passed(self) -> bool:
        return not self.broken


def validate_metrics(paths: Sequence[Path]) -> Validation:
    """Counts the rows that break each rule.

    Raises:
        BadInput: an id column is missing or is not text; then no row could be judged.
    """
    profile = scout(paths)
    found = {column.name: column for column in profile.columns}
    for name in ID_COLUMNS:
        if name not in found or not found[name].text:
            raise BadInput(f"{paths[0]}: has no text column {name}")
    broken: Counter[str] = Counter()
    for column in profile.columns:
        if column.name not in ID_COLUMNS and column.type != "double":
            broken[f"{column.name}|double"] = profile.rows
    schema = metrics_schema(profile)
    names = schema.column_names()
    lazy = pl.scan_parquet(list(paths))
    rows = max(1024, _CELLS_AT_ONCE // len(names))
    for frame in lazy.select(names).collect_batches(chunk_size=rows, maintain_order=True):
        if frame.height:
            broken.update(schema.filter(frame).failure.counts())
    ids = lazy.group_by("document_id").len("rows").filter(pl.col("rows") > 1)
    twice = ids.select(pl.col("rows").sum()).collect().item()
    if twice:
        broken[UNIQUE] = int(twice)
    return Validation(profile.rows, len(names), dict(sorted(broken.items())))


def metrics_schema(profile: Profile) -> "type[dy.Schema]":
    """The dataframely schema of a metrics table with these columns.

    Ids, sources and kinds are present, a source is one that we read, numbers are finite or null, and a
    column whose name says that it is a share is between 0 and 1.
    """
    import dataframely as dy

    columns: dict[str, Any] = {
        "document_id": dy.String(min_length=1),
        "source": dy.String(check={"known": lambda column: column.is_in(SOURCES)}),
        "kind": dy.String(min_length=1),
    }
    for column in profile.columns:
        if column.name in columns or column.type != "double":
            continue
        is_share = column.name in _SHARES
        columns[column.name] = dy.Float64(
            nullable=True, min=0 if is_share else None, max=1 if is_share else None
        )
    # A class statement could not name columns that are known only now; `alias` takes names of any form.
    fields = {f"column_{index}": _named(column, name) for index, (name, column) in enumerate(columns.items())}
    return types.new_class("MetricsSchema", (dy.Schema,), exec_body=lambda body: body.update(fields))


def _named(column: Any, name: str) -> Any:
    column.alias = name
    return column
