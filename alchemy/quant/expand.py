"""QuantAgent: the feature space over N numeric columns: the columns, their squares, their products.

That is N + N + N(N-1)/2 features. They are never all held or written: `evaluate` makes any of them for
one batch of rows, and only those that `curate` keeps reach the disk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_COLUMNS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Feature:
    """A base column (`right` is -1), a square (`left == right`), or a product of two base columns."""

    name: str
    left: int
    right: int = -1

    def expression(self, columns: Sequence[str]) -> pl.Expr:
        """The feature in Polars; null where a factor is null or not finite."""
        value = _finite(columns[self.left])
        if self.right >= 0:
            value = value * _finite(columns[self.right])
        return value.alias(self.name)


def expand(columns: Sequence[str], *, logs: bool = False) -> list[Feature]:
    """All features in the order in which the curator prefers them: columns, logs, squares, products.

    With `logs`, the base columns are these and then `log_columns` of them.
    """
    base = [Feature(name, index) for index, name in enumerate(columns)]
    if logs:
        base += [
            Feature(name, len(columns) + index)
            for index, name in enumerate(one.meta.output_name() for one in log_columns(columns))
        ]
    squares = [Feature(f"{name}^2", index, index) for index, name in enumerate(columns)]
    products = [
        Feature(f"{columns[left]}*{columns[right]}", left, right)
        for left, right in combinations(range(len(columns)), 2)
    ]
    return base + squares + products


def log_columns(columns: Sequence[str]) -> list[pl.Expr]:
    """sign(x) * log(1 + |x|) of each column: what makes counts with a long tail comparable."""
    return [(_finite(name).sign() * _finite(name).abs().log1p()).alias(f"log({name})") for name in columns]


def batches(paths: Sequence[Path], columns: Sequence[str], rows: int) -> Iterator[Floats]:
    """The columns in batches of at most `rows` rows, each (columns, rows); NaN for null and not finite."""
    lazy = pl.scan_parquet(list(paths)).select(_finite(name) for name in columns)
    for frame in lazy.collect_batches(chunk_size=rows, maintain_order=True):
        if frame.height:
            yield np.ascontiguousarray(frame.select(pl.all().fill_null(np.nan)).to_numpy().T)


def read_columns(paths: Sequence[Path], names: Sequence[str]) -> Iterator[tuple[str, Floats]]:
    """Whole columns, NaN for null, read a few at a time."""
    for start in range(0, len(names), _COLUMNS_AT_ONCE):
        some = names[start : start + _COLUMNS_AT_ONCE]
        frame = pl.scan_parquet(list(paths)).select(pl.col(some).cast(pl.Float64)).collect()
        for name in some:
            yield name, frame[name].fill_null(np.nan).to_numpy()


def factors(features: Sequence[Feature]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indexes of the left and right base column of each feature, as arrays for `evaluate`."""
    return (
        np.array([feature.left for feature in features], dtype=np.intp),
        np.array([feature.right for feature in features], dtype=np.intp),
    )


def evaluate(base: Floats, left: NDArray[np.intp], right: NDArray[np.intp]) -> Floats:
    """Features of one batch: (columns, rows) -> (features, rows), NaN where a factor is NaN."""
    values: Floats = np.empty((len(left), base.shape[1]))
    # Row by row: the factors stay in the processor's cache, and there is no temporary of this size.
    for out, one, other in zip(values, left.tolist(), right.tolist(), strict=True):
        if other < 0:
            out[:] = base[one]
        else:
            np.multiply(base[one], base[other], out=out)
    return values


def _finite(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite()).then(value).alias(name)
