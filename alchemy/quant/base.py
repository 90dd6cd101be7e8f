"""The base columns of a table, and what two passes over them tell about every feature made of them.

A feature has at most two factors: its columns, or a column and the reciprocal of a divisor. The rows where
both are present and the sum of their products are one (N, N) matrix each, so the count, mean, largest
magnitude and null pattern of any feature are known before a single one is made.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alchemy.quant.expand import Feature, Floats, batches

MAX_ROWS = 8_192  # of a batch; 64 kB of doubles of one column fit the second-level cache many times
Indexes = NDArray[np.intp]


class BaseTable:
    """Reads base columns in batches inside `memory` bytes, scaled by powers of two, which is exact.

    After scaling no factor exceeds 1, so squares and fourth powers neither overflow nor drown.
    """

    def __init__(
        self, paths: Sequence[Path], base: Sequence[pl.Expr], features: Sequence[Feature], memory: int
    ) -> None:
        self._paths = paths
        self._base = base
        self._memory = memory
        self._divides = np.zeros(len(base), dtype=bool)
        self._divides[[feature.right for feature in features if feature.ratio]] = True
        self._exponent = np.zeros(len(base), dtype=np.int32)
        self._largest = self._measure()  # (N,) of the factors, not scaled
        self.present = np.zeros((len(base), len(base)), dtype=np.int64)  # rows where both have a value
        self._sums = np.zeros(len(base))
        self._products = np.zeros((len(base), len(base)))
        self._sum()

    def batches(self, vectors: int) -> Iterator[Floats]:
        """Scaled base columns, (N, rows), NaN for null: as many rows as fit if each needs `vectors` doubles.

        With equal `vectors` the batches are equal in each pass.
        """
        for base in batches(self._paths, self._base, self.batch_rows(vectors)):
            with np.errstate(over="ignore"):  # of a divisor that is 1e308 times the smallest: 1 / it is 0
                scaled = np.ldexp(base, -self._exponent[:, None])
            yield scaled

    def batch_rows(self, vectors: int) -> int:
        """The most rows of a batch."""
        return int(np.clip(self._memory // (8 * (vectors + 4 * len(self._base))), 64, MAX_ROWS))

    def counts(self, features: Sequence[Feature]) -> NDArray[np.int64]:
        """The rows where each feature has a value."""
        left, right = _factors(features)
        counts: NDArray[np.int64] = self.present[left, np.where(right >= 0, right, left)]
        return counts

    def means(self, features: Sequence[Feature]) -> Floats:
        """The mean of each scaled feature over its own rows: near enough to subtract before summing."""
        left, right = _factors(features)
        totals = np.where(right >= 0, self._products[left, right], self._sums[left])
        return np.asarray(totals / self.counts(features))

    def overflows(self, feature: Feature) -> bool:
        """Whether a value might be too large for a double."""
        if feature.right < 0:
            return False
        with np.errstate(over="ignore", invalid="ignore"):
            return not np.isfinite(self._largest[feature.left] * self._largest[feature.right])

    def patterns(self, features: Sequence[Feature]) -> Indexes:
        """The null pattern of each feature, numbered as they appear; one number means equal nulls.

        Two columns are null on the same rows exactly when each has as many values as they have in common.
        """
        own = self.present.diagonal()
        same = (self.present == own[:, None]) & (self.present == own[None, :])
        column = same.argmax(axis=1)  # the first column with the same nulls stands for all
        numbers: dict[tuple[int, int], int] = {}
        result = np.empty(len(features), dtype=np.intp)
        for index, feature in enumerate(features):
            left = int(column[feature.left])
            right = int(column[feature.right]) if feature.right >= 0 else left
            if self.present[left, right] == own[left]:  # no value of left without one of right
                right = left
            elif self.present[left, right] == own[right]:
                left = right
            result[index] = numbers.setdefault((min(left, right), max(left, right)), len(numbers))
        return result

    def _measure(self) -> Floats:
        largest = np.zeros(len(self._base))
        smallest = np.full(len(self._base), np.inf)
        for base in self.batches(0):
            size = np.abs(base)
            np.fmax(largest, np.fmax.reduce(size, axis=1), out=largest)
            np.fmin(smallest, np.fmin.reduce(size, axis=1), out=smallest)
        # frexp gives a size in [1/2, 1): columns come below 1, and divisors, one less, to at least 1.
        self._exponent = np.where(self._divides, np.frexp(smallest)[1] - 1, np.frexp(largest)[1])
        with np.errstate(over="ignore", divide="ignore"):
            return np.where(self._divides, 1 / smallest, largest)

    def _sum(self) -> None:
        for base in self.batches(0):
            np.divide(1, base, out=base, where=self._divides[:, None])
            missing = np.isnan(base)
            mask = (~missing).astype(np.float64)
            base[missing] = 0
            self.present += (mask @ mask.T).astype(np.int64)
            self._sums += base.sum(axis=1)
            self._products += base @ base.T


def _factors(features: Sequence[Feature]) -> tuple[Indexes, Indexes]:
    """Indexes of the left and the right base column of each feature; right is -1 where there is none."""
    return (
        np.array([feature.left for feature in features], dtype=np.intp),
        np.array([feature.right for feature in features], dtype=np.intp),
    )
