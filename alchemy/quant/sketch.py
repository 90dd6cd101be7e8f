"""Sketches: what is remembered of a table's columns once its rows are gone, in a few kilobytes of JSON.

A number column is kept as atoms (values that many rows hold: the zeros of a count) and as counts between
quantiles of the rest; a text column as the counts of its most common values. Other rows are then counted
into the *same* cells; counts of two batches in one sketch's cells add up, so no comparison needs all rows
at once.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from alchemy.errors import ContractBroken
from alchemy.quant.expand import Floats, read_columns
from alchemy.quant.scout import scout

FILE = "sketch.json"
ATOM_SHARE = 0.02  # of the present values
MIN_ATOM = 5  # rows
QUANTILES = 64
MAX_CATEGORIES = 100
_FORMAT = 1
_WINSOR = 0.005  # share at each end that `spread` pulls in
_DIGITS = 12  # a mean's last bits differ between machines; an artifact's bytes must not
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NumericSketch:
    """One number column. Values that are not finite count as null.

    Cell j is (edges[j-1], edges[j]] without the atom at edges[j]; cell 0 holds the smallest value alone.
    """

    name: str
    rows: int
    nulls: int
    mean: float | None
    sd: float | None
    spread: float | None  # sd of the values between the 0.5 % and 99.5 % quantile, others moved to these
    low: float | None  # those two quantiles
    high: float | None
    edges: tuple[float, ...]
    cells: tuple[int, ...]
    atoms: tuple[int, ...]  # for each edge the rows that hold exactly it, where it is an atom; else 0

    @property
    def counts(self) -> "NumericCounts":
        """The sketched rows themselves in the sketch's cells."""
        return NumericCounts(self.nulls, 0, np.array(self.cells, np.int64), np.array(self.atoms, np.int64), 0)

    def count(self, values: Floats) -> "NumericCounts":
        """Other rows in the same cells."""
        present = values[np.isfinite(values)]
        edges = np.array(self.edges)
        nulls = int(values.size - present.size)
        if not edges.size:
            empty = np.zeros(0, np.int64)
            return NumericCounts(nulls, 0, empty, empty, int(present.size))
        position = np.searchsorted(edges, present)
        below, above = present < edges[0], position == edges.size
        at = np.minimum(position, edges.size - 1)
        is_atom = (edges[at] == present) & (np.array(self.atoms)[at] > 0)
        in_cell = ~(is_atom | below | above)
        return NumericCounts(
            nulls,
            int(below.sum()),
            np.bincount(at[in_cell], minlength=edges.size),
            np.bincount(at[is_atom], minlength=edges.size),
            int(above.sum()),
        )


@dataclass(frozen=True, slots=True)
class NumericCounts:
    """Rows in the cells of a sketch; `below` and `above` are values outside of all that it saw."""

    nulls: int
    below: int
    cells: Counts
    atoms: Counts
    above: int

    @property
    def present(self) -> int:
        """All rows but the nulls."""
        return self.below + int(self.cells.sum() + self.atoms.sum()) + self.above

    def __add__(self, other: "NumericCounts") -> "NumericCounts":
        return NumericCounts(
            self.nulls + other.nulls,
            self.below + other.below,
            self.cells + other.cells,
            self.atoms + other.atoms,
            self.above + other.above,
        )


@dataclass(frozen=True, slots=True)
class CategorySketch:
    """One text column: its most common values, most common first, and how many rows hold another."""

    name: str
    rows: int
    nulls: int
    values: tuple[str, ...]
    counts: tuple[int, ...]
    others: int


@dataclass(frozen=True, slots=True)
class Sketch:
    """A table's columns, sorted by name."""

    rows: int
    numbers: tuple[NumericSketch, ...]
    categories: tuple[CategorySketch, ...]


def sketch_table(paths: Sequence[Path]) -> Sketch:
    """Sketches the number and text columns of Parquet files, except `document_id`, a few at a time."""
    profile = scout(paths)
    texts = [column.name for column in profile.columns if column.text and column.name != "document_id"]
    return Sketch(
        rows=profile.rows,
        numbers=tuple(sketch_numbers(name, values) for name, values in read_columns(paths, profile.numeric)),
        categories=tuple(sketch_categories(name, count_categories(paths, name)) for name in sorted(texts)),
    )


def write_sketch(paths: Sequence[Path], folder: Path) -> None:
    """Writes `sketch.json`; equal tables give equal bytes."""
    content = {"format": _FORMAT, **asdict(sketch_table(paths))}
    (folder / FILE).write_bytes(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))


def read_sketch(path: Path) -> Sketch:
    """Reads what `write_sketch` wrote. Raises ContractBroken on another format."""
    row = orjson.loads(path.read_bytes())
    if row.get("format") != _FORMAT:
        raise ContractBroken(f"{path}: a sketch of format {row.get('format')}, not {_FORMAT}")
    return Sketch(
        rows=row["rows"],
        numbers=tuple(NumericSketch(**_tuples(one)) for one in row["numbers"]),
        categories=tuple(CategorySketch(**_tuples(one)) for one in row["categories"]),
    )


def sketch_numbers(name: str, values: Floats) -> NumericSketch:
    """Sketches one column; (rows,) with NaN for null."""
    present = np.sort(values[np.isfinite(values)])
    size = present.size
    distinct, held = np.unique(present, return_counts=True)
    is_atom = held >= max(MIN_ATOM, ATOM_SHARE * size)
    rest = np.repeat(distinct[~is_atom], held[~is_atom])
    at = np.arange(1, QUANTILES + 1) * rest.size // QUANTILES - 1
    edges = np.unique(np.concatenate([distinct[is_atom], rest[:1], rest[at[at >= 0]]]))
    atoms = np.zeros(edges.size, np.int64)
    atoms[np.searchsorted(edges, distinct[is_atom])] = held[is_atom]
    cells = np.bincount(np.searchsorted(edges, rest), minlength=edges.size)
    low, high = _ends(present)
    with np.errstate(over="ignore", invalid="ignore"):
        return NumericSketch(
            name=name,
            rows=int(values.size),
            nulls=int(values.size - size),
            mean=_rounded(present.mean()) if size else None,
            sd=_rounded(present.std()) if size else None,
            spread=_rounded(np.clip(present, low, high).std()) if size else None,
            low=low if size else None,
            high=high if size else None,
            edges=tuple(edges.tolist()),
            cells=tuple(cells.tolist()),
            atoms=tuple(atoms.tolist()),
        )


def sketch_categories(name: str, counted: dict[str | None, int]) -> CategorySketch:
    """Sketches one text column from the rows of each of its values."""
    nulls = counted.get(None, 0)
    ordered = sorted(
        ((count, value) for value, count in counted.items() if value is not None),
        key=lambda pair: (-pair[0], pair[1]),
    )
    kept = ordered[:MAX_CATEGORIES]
    return CategorySketch(
        name=name,
        rows=sum(counted.values()),
        nulls=nulls,
        values=tuple(value for _, value in kept),
        counts=tuple(count for count, _ in kept),
        others=sum(count for count, _ in ordered[MAX_CATEGORIES:]),
    )


def count_categories(paths: Sequence[Path], name: str) -> dict[str | None, int]:
    """The rows of each value of a text column."""
    frame = pl.scan_parquet(list(paths)).group_by(pl.col(name).cast(pl.String)).len("rows").collect()
    return dict(zip(frame[name].to_list(), frame["rows"].to_list(), strict=True))


def _ends(present: Floats) -> tuple[float, float]:
    if not present.size:
        return 0.0, 0.0
    last = present.size - 1
    return float(present[round(last * _WINSOR)]), float(present[round(last * (1 - _WINSOR))])


def _rounded(value: Any) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
