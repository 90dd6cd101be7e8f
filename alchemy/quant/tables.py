"""Tables that people bring: a Parquet or CSV file, a folder of them, or an artifact's folder in the store.

`alchemy scout` and `alchemy quant` read them. Inside the line, tables are Parquet already and come from
the store.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from alchemy.errors import BadInput, NotFound
from alchemy.quant.features import FeatureReport, build_features
from alchemy.quant.scout import ColumnProfile, Profile, scout
from alchemy.settings import QuantOptions

FEATURES = "final_features.parquet"
_ID = "document_id"
_ROWS_PER_GROUP = 32_768


def find_tables(path: Path) -> list[Path]:
    """The files of a table: the file itself, or those in a folder, sorted; all Parquet or all CSV.

    Of a folder of versions (`processed/metrics.parquet/`) it is the files of the latest.

    Raises:
        NotFound: there is nothing of that name.
        BadInput: a folder without tables, or with both kinds.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise NotFound(f"{path}: no such file or folder")
    if (path / "latest").is_file():
        path = path / orjson.loads((path / "latest").read_bytes())["version"]
    found = sorted(one for one in path.iterdir() if one.is_file() and one.suffix in (".parquet", ".csv"))
    if not found:
        raise BadInput(f"{path}: holds no .parquet or .csv file")
    if len({one.suffix for one in found}) > 1:
        raise BadInput(f"{path}: holds Parquet and CSV files; name one of them")
    return found


def is_csv(paths: Sequence[Path]) -> bool:
    return paths[0].suffix.lower() == ".csv"


def profile_table(paths: Sequence[Path]) -> Profile:
    """The profile of a table: of Parquet from the footers alone, of CSV by one lazy scan of all rows."""
    if not is_csv(paths):
        return scout(paths)
    lazy = _scan_csv(paths)
    try:
        schema = lazy.collect_schema()
        wanted = [pl.len().alias("rows")]
        for index, (name, kind) in enumerate(schema.items()):
            wanted.append(pl.col(name).null_count().alias(f"nulls {index}"))
            if kind != pl.Null:
                wanted += [pl.col(name).min().alias(f"min {index}"), pl.col(name).max().alias(f"max {index}")]
        found = lazy.select(wanted).collect().row(0, named=True)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{paths[0]}: not a readable CSV table ({_first_line(error)})") from None
    columns = tuple(
        ColumnProfile(
            name=name,
            type=str(kind).lower(),
            numeric=kind.is_numeric(),
            text=kind == pl.String,
            nulls=found[f"nulls {index}"],
            minimum=found.get(f"min {index}"),
            maximum=found.get(f"max {index}"),
            bytes=0,
        )
        for index, (name, kind) in enumerate(schema.items())
    )
    return Profile(len(paths), found["rows"], sum(path.stat().st_size for path in paths), columns)


def profile_rows(profile: Profile) -> list[dict[str, Any]]:
    """One JSON row for each column."""
    return [
        {
            "column": column.name,
            "type": column.type,
            "nulls": column.nulls,
            "min": _plain(column.minimum),
            "max": _plain(column.maximum),
            "bytes": column.bytes or None,  # a column of a CSV has no size of its own
        }
        for column in profile.columns
    ]


def make_features(source: Path, folder: Path, options: QuantOptions) -> FeatureReport:
    """Writes `final_features.parquet` and `report.json` of a table into `folder`, which is made if missing.

    A table without `document_id` gets the row number, from 0, as id. Files appear only when they are whole.
    Raises BadInput on what is no table.
    """
    paths = find_tables(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise BadInput(f"{folder}: is a file; name a folder") from None
    with tempfile.TemporaryDirectory(prefix=".quant-", dir=folder) as name:
        scratch = Path(name)
        report = build_features(_with_ids(paths, scratch / "table.parquet"), scratch, options)
        shutil.move(scratch / "part-00000.parquet", folder / FEATURES)
        shutil.move(scratch / "report.json", folder / "report.json")
    return report


def _with_ids(paths: Sequence[Path], copy: Path) -> Sequence[Path]:
    """The table as Parquet with an id: as it is, or as a copy of its number columns."""
    if is_csv(paths):
        lazy, names = _scan_csv(paths), _numeric(paths)
    else:
        profile = scout(paths)
        if any(column.name == _ID for column in profile.columns):
            return paths
        lazy, names = pl.scan_parquet(list(paths)), list(profile.numeric)
    try:
        if _ID in lazy.collect_schema():
            lazy = lazy.with_columns(pl.col(_ID).cast(pl.String))
            names = [name for name in names if name != _ID]
        else:
            lazy = lazy.with_row_index(_ID).with_columns(pl.col(_ID).cast(pl.String))
        lazy.select(_ID, *names).sink_parquet(copy, row_group_size=_ROWS_PER_GROUP)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{paths[0]}: not a readable table ({_first_line(error)})") from None
    return [copy]


def _numeric(paths: Sequence[Path]) -> list[str]:
    return list(profile_table(paths).numeric)


def _scan_csv(paths: Sequence[Path]) -> pl.LazyFrame:
    # Types are inferred from all rows: a column of integers whose row 10,001 is 0.5 is one of floats.
    return pl.scan_csv(list(paths), infer_schema_length=None, null_values=["", "NA", "NaN", "null"])


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
