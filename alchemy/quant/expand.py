"""QuantAgent: the feature space over N numeric columns: the columns, their squares, their products.

That is N + N + N(N-1)/2 features; N logarithms and N(N-1) ratios more where they are asked for. They are
never all held or written: `evaluate` makes any of them for one batch of rows, and only those that `curate`
keeps reach the disk.

Features are made of *base* columns: the columns themselves, then their logarithms, then their divisors (the
column without its zeros), so that a logarithm is a column like any other and a ratio is null where its
denominator is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_COLUMNS_AT_ONCE = 16
_PAGE_BUFFER = 1 << 18  # bytes of each column that is read


@dataclass(frozen=True, slots=True)
class Feature:
    """A base column (`right` is -1), or a square (`left == right`), product or ratio of two of them."""

    name: str
    left: int
    right: int = -1
    ratio: bool = False  # left / right instead of left * right

    def expression(self) -> pl.Expr:
        """The feature in Polars over a frame of base columns; null where one of its columns is null."""
        value = pl.col(str(self.left))
        if self.right >= 0:
            other = pl.col(str(self.right))
            value = value / other if self.ratio else value * other
        return value.alias(self.name)


def expand(columns: Sequence[str], *, logs: bool = False, ratios: bool = False) -> list[Feature]:
    """All features in the order in which the curator prefers them: columns, logs, squares, products, ratios.

    Their base columns are those of `base_columns` with the same arguments.
    """
    count = len(columns)
    features = [Feature(name, index) for index, name in enumerate(columns)]
    if logs:
        features += [Feature(f"log({name})", count + index) for index, name in enumerate(columns)]
    features += [Feature(f"{name}^2", index, index) for index, name in enumerate(columns)]
    features += [
        Feature(f"{columns[left]}*{columns[right]}", left, right)
        for left, right in combinations(range(count), 2)
    ]
    if ratios:
        divisors = count * (2 if logs else 1)
        features += [
            Feature(f"{columns[left]}/{columns[right]}", left, divisors + right, ratio=True)
            for left, right in permutations(range(count), 2)
        ]
    return features


def base_columns(columns: Sequence[str], *, logs: bool = False, ratios: bool = False) -> list[pl.Expr]:
    """The base columns of `expand`, named "0", "1" and so on; null where a value is null or not finite.

    A logarithm is sign(x) * log(1 + |x|): what makes counts with a long tail comparable.
    """
    finite = [_finite(name) for name in columns]
    base = list(finite)
    if logs:
        base += [value.sign() * value.abs().log1p() for value in finite]
    if ratios:
        base += [pl.when(value != 0).then(value) for value in finite]
    return [value.alias(str(index)) for index, value in enumerate(base)]


def batches(paths: Sequence[Path], base: Sequence[pl.Expr], rows: int) -> Iterator[Floats]:
    """The base columns in batches of at most `rows` rows, each (columns, rows); NaN for null."""
    for frame in frames(paths, base, rows):
        yield np.ascontiguousarray(frame.select(pl.all().fill_null(np.nan)).to_numpy().T)


def frames(paths: Sequence[Path], wanted: Sequence[pl.Expr], rows: int) -> Iterator[pl.DataFrame]:
    """Expressions over consecutive rows of Parquet files, at most `rows` at a time, in order; none is empty.

    Decodes page by page. A lazy scan decodes whole row groups, several ahead of a slow reader: 400 MB of 50
    columns in groups of 65,536 rows, where this takes 100.
    """
    names = list(dict.fromkeys(name for one in wanted for name in one.meta.root_names()))
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_PAGE_BUFFER) as file:
            for batch in file.iter_batches(rows, columns=names, use_threads=False):
                if batch.num_rows:
                    yield pl.DataFrame(batch).select(wanted)


def read_columns(paths: Sequence[Path], names: Sequence[str]) -> Iterator[tuple[str, Floats]]:
    """Whole columns, NaN for null, read a few at a time."""
    for start in range(0, len(names), _COLUMNS_AT_ONCE):
        some = names[start : start + _COLUMNS_AT_ONCE]
        frame = pl.scan_parquet(list(paths)).select(pl.col(some).cast(pl.Float64)).collect()
        for name in some:
            yield name, frame[name].fill_null(np.nan).to_numpy()


def evaluate(base: Floats, features: Sequence[Feature], out: Floats | None = None) -> Floats:
    """Features of one batch: (base columns, rows) -> (features, rows), NaN where a base column is NaN."""
    values = np.empty((len(features), base.shape[1])) if out is None else out
    # Row by row: the factors stay in the processor's cache, and there is no temporary of this size.
    for row, feature in zip(values, features, strict=True):
        if feature.right < 0:
            row[:] = base[feature.left]
        elif feature.ratio:
            np.divide(base[feature.left], base[feature.right], out=row)
        else:
            np.multiply(base[feature.left], base[feature.right], out=row)
    return values


def _finite(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite()).then(value)
