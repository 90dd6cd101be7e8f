"""Where documents stand among those of the same source and kind, in every column.

Percentiles are exact. Columns are ranked a few at a time and pass through a scratch file, so memory holds a
handful of numbers per document, whatever the number of columns.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alchemy.quant.expand import Floats, read_columns

Percentile = NDArray[np.float32]

# From the names of F columns and their percentiles (documents, F), NaN for null, to scores in [0, 1] of the
# documents, NaN where nothing can be said. It is called for one batch of documents after another.
Scorer = Callable[[Sequence[str], Percentile], Floats]


def mean_percentile(names: Sequence[str], percentiles: Percentile) -> Floats:
    """All columns count alike: the score where none is learned (contract X21)."""
    present = np.isfinite(percentiles)
    count = present.sum(axis=1)
    total = np.where(present, percentiles, 0).sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class Groups:
    """Documents by source and kind: 40 comments are many for a commit and few for an issue.

    Attributes:
        names: (source, kind) of every group.
        rows: The row numbers of every group, ascending.
        of_row: The number of the group of every row.
    """

    def __init__(self, documents: pl.DataFrame) -> None:
        keyed = documents.with_row_index("row").group_by("source", "kind").agg("row").sort("source", "kind")
        self.names = list(zip(keyed["source"].to_list(), keyed["kind"].to_list(), strict=True))
        self.rows: list[NDArray[np.intp]] = [
            np.sort(rows.to_numpy().astype(np.intp)) for rows in keyed["row"]
        ]
        self.of_row = np.zeros(documents.height, dtype=np.int32)
        for number, rows in enumerate(self.rows):
            self.of_row[rows] = number


class Percentiles:
    """Percentiles in [0, 1] of some columns within each group, NaN for null; a tie counts by half."""

    def __init__(self, names: Sequence[str], height: int, scratch: IO[bytes]) -> None:
        self.names = names
        self.height = height  # documents
        self._scratch = scratch  # a float32 column after another

    def rows(self, numbers: NDArray[np.intp]) -> Percentile:
        """Those of some documents, (documents, columns)."""
        found = np.empty((len(numbers), len(self.names)), dtype=np.float32)
        for index in range(len(self.names)):
            found[:, index] = self._read(index, 0, self.height)[numbers]
        return found

    def batches(self, memory_mb: int) -> Iterator[tuple[int, Percentile]]:
        """(first row, percentiles (documents, columns)) of consecutive documents, all of them in the end."""
        size = max(1, (memory_mb << 17) // max(1, len(self.names)) // 4)
        for start in range(0, self.height, size):
            batch = np.empty((len(self.names), min(size, self.height - start)), dtype=np.float32)
            for index in range(len(self.names)):
                batch[index] = self._read(index, start, batch.shape[1])
            yield start, batch.T

    def _read(self, column: int, start: int, count: int) -> Percentile:
        self._scratch.seek(4 * (column * self.height + start))
        return np.frombuffer(self._scratch.read(4 * count), np.float32)


@contextmanager
def ranked(paths: Sequence[Path], names: Sequence[str], groups: Groups) -> Iterator[Percentiles]:
    """The percentiles of columns of Parquet files, whose rows are those of `groups`."""
    height = len(groups.of_row)
    with tempfile.TemporaryFile(prefix="alchemy-percentiles-") as scratch:
        for _, values in read_columns(paths, names):
            percentile = np.full(height, np.nan, dtype=np.float32)
            for members in groups.rows:
                present = members[np.isfinite(values[members])]
                if present.size:
                    below, above = standings(values[present])
                    percentile[present] = (below + 1 - above) / 2
            scratch.write(percentile.tobytes())
        yield Percentiles(names, height, scratch)


def standings(values: Floats) -> tuple[Floats, Floats]:
    """For each value the share of all values that are strictly below, and strictly above."""
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))  # of runs of equals
    lengths = np.diff(np.append(starts, values.size))
    below, above = np.empty(values.size), np.empty(values.size)
    below[order] = np.repeat(starts, lengths)
    above[order] = np.repeat(values.size - starts - lengths, lengths)
    return below / values.size, above / values.size
