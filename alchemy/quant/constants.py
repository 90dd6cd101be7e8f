"""Which features hold (nearly) one value only: decided exactly, mostly from the first rows alone."""

from collections.abc import Sequence

import numpy as np

from alchemy.quant.base import BaseTable
from alchemy.quant.expand import Feature, Floats, evaluate


def common_shares(table: BaseTable, features: Sequence[Feature], rare: float) -> Floats:
    """The share of the most common value of each feature, where it may exceed 1 - `rare`; else 0.

    Where it does, fewer than `rare` of the rows hold another value. Cut into disjoint pairs of rows, each
    pair of unequal values takes one of them, so once there are too many such pairs a feature is cleared.
    For most that is in the first batch; only the others are read to the end. Their one value that more
    than half of the rows can hold is found by Boyer and Moore's majority vote and counted in a second pass.
    """
    counts = table.counts(features)
    enough = rare * counts + 1  # one more pair than it takes, against rounding
    unequal = np.zeros(len(features), dtype=np.int64)
    votes = [_Vote() for _ in features]
    suspects: Sequence[int] = range(len(features))
    for base in table.batches(4):
        remaining: list[int] = []
        for index in suspects:
            values = evaluate(base, features[index : index + 1])[0]
            unequal[index] += _unequal_pairs(values)
            if unequal[index] <= enough[index]:
                votes[index].add(values[~np.isnan(values)])
                remaining.append(index)
        suspects = remaining
        if not suspects:
            break
    found = np.zeros(len(features), dtype=np.int64)
    if suspects:
        for base in table.batches(4):
            for index in suspects:
                values = evaluate(base, features[index : index + 1])[0]
                found[index] += np.count_nonzero(values == votes[index].value)
    return np.asarray(found / counts)


class _Vote:
    """Boyer and Moore's vote, batch by batch: a value in most rows of a batch is the batch's median."""

    def __init__(self) -> None:
        self.value = np.nan
        self._weight = 0

    def add(self, values: Floats) -> None:
        if not values.size:
            return
        middle = np.partition(values, values.size // 2)[values.size // 2]
        lead = max(0, 2 * int(np.count_nonzero(values == middle)) - values.size)  # the rest cancels out
        if middle == self.value:
            self._weight += lead
            return
        if lead > self._weight:
            self.value = middle
        self._weight = abs(self._weight - lead)


def _unequal_pairs(values: Floats) -> int:
    """How many disjoint pairs of neighbors hold two different values."""
    pairs = values[: values.size // 2 * 2].reshape(-1, 2)
    different = (pairs[:, 0] < pairs[:, 1]) | (pairs[:, 0] > pairs[:, 1])  # unlike !=, False for NaN
    return int(np.count_nonzero(different))
