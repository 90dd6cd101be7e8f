"""Curator: which features carry something that no feature before them carries.

Features are judged in their order. One is dropped when it has too few values, when (nearly) all its values
are one, or when its correlation with a feature *already kept* reaches the limit: that one is its witness.

Where the matrix of all pairs does not fit the memory, features are judged in blocks against the kept ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from alchemy.quant.base import BaseTable
from alchemy.quant.constants import common_shares
from alchemy.quant.correlate import MIN_VALUES, Block, Correlations
from alchemy.quant.expand import Feature
from alchemy.settings import QuantOptions

_TOLERANCE = 1e-9  # of a correlation
_MANY_PATTERNS = 64
_SMALL_BLOCK = 192


@dataclass(frozen=True, slots=True)
class Dropped:
    """A feature that was left out: too_few_values, overflow, constant, near_constant or correlated."""

    feature: str
    reason: str
    witness: str | None = None  # the kept feature that makes this one redundant
    r: float | None = None  # their correlation


class Curator:
    """Judges features over the base columns of Parquet files inside `options.memory_mb`."""

    def __init__(
        self,
        paths: Sequence[Path],
        base: Sequence[pl.Expr],
        features: Sequence[Feature],
        options: QuantOptions,
    ) -> None:
        self._features = features
        self._options = options
        self._bytes = options.memory_mb << 19  # half for sums, half for a batch of rows
        self._table = BaseTable(paths, base, features, self._bytes)

    def select(self) -> tuple[list[Feature], list[Dropped]]:
        """Returns the kept and the dropped features, each in the order of the features."""
        dropped: dict[str, Dropped] = {}
        candidates = self._drop_constants(self._drop_unusable(dropped), dropped)
        patterns = self._table.patterns(candidates)
        kept: list[int] = []
        start = 0
        while start < len(candidates):
            size = self._block_size(len(kept), len(candidates) - start, int(patterns.max()) + 1)
            block = Block.of(candidates, kept, range(start, start + size), patterns)
            kept += [start + position for position in self._judge(block, dropped)]
            start += size
        return [candidates[index] for index in kept], [
            dropped[feature.name] for feature in self._features if feature.name in dropped
        ]

    def _drop_unusable(self, dropped: dict[str, Dropped]) -> list[Feature]:
        usable = []
        for feature, count in zip(self._features, self._table.counts(self._features), strict=True):
            if count < MIN_VALUES:
                dropped[feature.name] = Dropped(feature.name, "too_few_values")
            elif self._table.overflows(feature):
                dropped[feature.name] = Dropped(feature.name, "overflow")
            else:
                usable.append(feature)
        return usable

    def _drop_constants(self, features: list[Feature], dropped: dict[str, Dropped]) -> list[Feature]:
        varied = []
        rare = self._options.min_variance_share
        for feature, share in zip(features, common_shares(self._table, features, rare), strict=True):
            if share == 1 or share > 1 - rare:
                dropped[feature.name] = Dropped(feature.name, "constant" if share == 1 else "near_constant")
            else:
                varied.append(feature)
        return varied

    def _judge(self, block: Block, dropped: dict[str, Dropped]) -> list[int]:
        """Decides on the features of one block, in order; returns the positions in it of those to keep."""
        limit = self._options.max_correlation - _TOLERANCE
        correlations = Correlations(self._table, block, limit)
        alive = np.zeros(len(block.features), dtype=bool)
        alive[: block.kept] = True
        added = []
        for position, feature in enumerate(block.features[block.kept :]):
            others = np.flatnonzero(alive)
            r = correlations.of(position, others)
            most = np.abs(r).max(initial=0)
            if most >= limit:
                best = int(np.argmax(np.abs(r) >= most - _TOLERANCE))  # the first of equals, on any machine
                witness = block.features[others[best]].name
                dropped[feature.name] = Dropped(feature.name, "correlated", witness, round(float(r[best]), 6))
            else:
                alive[block.kept + position] = True
                added.append(position)
        return added

    def _block_size(self, kept: int, left: int, patterns: int) -> int:
        """The most features whose sums against `kept` ones and each other fit the memory; at least one.

        With many null patterns each pair costs three products more. Then blocks are small: what one of them
        drops is not multiplied again, which is worth reading the rows once more.
        """
        if patterns > _MANY_PATTERNS:
            left = min(left, _SMALL_BLOCK)
        low, high = 1, left
        while low < high:
            middle = (low + high + 1) // 2
            if Block.doubles(kept, middle, patterns) * 8 <= self._bytes:
                low = middle
            else:
                high = middle - 1
        return low
