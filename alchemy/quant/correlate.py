"""Exact correlations of many features, as far as they can matter: those near or over a limit.

Correlations are over all rows where both features are present. What makes that small, stable and fast:
- Columns of one source are null on the documents of the others, so few different null patterns exist. The
  sums that a pair needs over its common rows (n, sum, sum of squares) are one per feature and *pattern*;
  only the cross product is one per pair. Without nulls that is a single matrix product.
- Features are shifted by their mean before anything is summed, after Chan, Golub, LeVeque (1983), so a mean
  of 1e8 with a deviation of 1 loses nothing; sums with one shift merge by adding.
- The cross products of all pairs are summed over a sample of the rows only. Over the rows that they have not
  seen, Cauchy and Schwarz bound them by the sums of squares, which are known: |sum xy| <= sqrt(sum xx * sum
  yy). Most pairs are thereby proved to stay below the limit. Only the others see the rest of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from alchemy.quant.base import BaseTable, Indexes
from alchemy.quant.expand import Feature, Floats, evaluate

MIN_VALUES = 8  # fewer present values, or common ones of a pair, say nothing about a distribution
_CONSTANT = 1e-12  # a variance below this share of the mean square is rounding
_SLACK = 1e-6  # of a correlation: many times the rounding of its bound
_HEADROOM = 0.15
_DOT_COST = 32  # time of a multiplication in a dot product, in those of one in a matrix product
_TILE = 16
Positions = NDArray[np.int32]  # half the room of Indexes: there is one for each pair


@dataclass(frozen=True, slots=True)
class Block:
    """Kept features followed by those to judge, with their null patterns renumbered from 0."""

    features: list[Feature]
    kept: int  # how many of `features` are kept already
    patterns: Indexes  # of each feature
    examples: Indexes  # of each pattern, the position of one feature
    own: Indexes  # the patterns that features to judge have
    column: Indexes  # of each pattern, its position in `own`, or -1

    @classmethod
    def of(cls, candidates: Sequence[Feature], kept: list[int], block: range, patterns: Indexes) -> "Block":
        """Candidates numbered `block` against those numbered `kept`; `patterns` are of all candidates."""
        chosen = [*kept, *block]
        _, examples, local = np.unique(patterns[chosen], return_index=True, return_inverse=True)
        own = np.unique(local[len(kept) :])
        column = np.full(len(examples), -1)
        column[own] = np.arange(len(own))
        return cls([candidates[index] for index in chosen], len(kept), local, examples, own, column)

    @staticmethod
    def doubles(kept: int, size: int, patterns: int) -> int:
        """The most numbers that `Correlations` hold for `size` features to judge, besides a batch of rows."""
        every, own = min(patterns, kept + size), min(patterns, size)
        return 3 * (kept + size) * size + 3 * size * every + 3 * kept * own + every * own


class _Marginals:
    """Sums of features over the rows of null patterns, (features, patterns) each."""

    def __init__(self, features: int, patterns: int) -> None:
        self.sums = np.zeros((features, patterns))
        self.squares = np.zeros((features, patterns))
        self.unseen = np.zeros((features, patterns))  # of the squares, those of rows outside of the sample

    def add(self, at: slice, x: Floats, mask: Floats, sampled: bool) -> None:
        """Adds a batch of the features `at`, x (features, rows), with the masks of all patterns."""
        squares = np.square(x) @ mask.T
        self.sums[at] += x @ mask.T
        self.squares[at] += squares
        if not sampled:
            self.unseen[at] += squares


class Correlations:
    """Pearson's r of the features to judge of a block with those before them.

    K features are kept, B are to be judged; of G null patterns the B features have H.
    """

    def __init__(self, table: BaseTable, block: Block, limit: float) -> None:
        """Reads the table; afterwards every correlation of at least `limit` is known."""
        self._table, self._block = table, block
        self._shift = table.means(block.features)[:, None]
        size, kept, patterns = len(block.features), block.kept, len(block.examples)
        self._tile = max(_TILE, patterns)  # the masks are read once for each tile
        self._vectors = size + 2 * self._tile + 3 * patterns
        self._room = np.empty((size, table.batch_rows(self._vectors)))  # fresh pages cost as much as sums
        # With sums of squares of 1 a pair is proved where |r| * share + (1 - share) < limit.
        self._share = min(1.0, 1 - limit + _HEADROOM)
        self._cross = np.zeros((size, size - kept))  # sum of x * y; NaN: proved to be below the limit
        self._kept = _Marginals(kept, len(block.own))
        self._judged = _Marginals(size - kept, patterns)
        self._present = np.zeros((patterns, len(block.own)))  # rows common to two patterns
        if self._sum_sample():
            self._sum_rest(*self._undecided(limit))

    def of(self, position: int, others: Indexes) -> Floats:
        """r of the feature to judge at `position` with `others`; 0 where it is undefined or below the limit.

        `others` are ascending positions of features before it, among all of the block.
        """
        covariance, scale, defined = self._covariances(position, others)
        known = defined & ~np.isnan(covariance)
        return np.where(known, np.clip(covariance / np.where(known, scale, 1), -1, 1), 0.0)

    def _sum_sample(self) -> bool:
        """Sums cross products over the sample and all else over all rows; whether there were others."""
        features, kept = self._block.features, self._block.kept
        examples, own = self._block.examples, self._block.own
        part = np.empty_like(self._cross)
        rest = False
        for number, base in enumerate(self._table.batches(self._vectors)):
            sampled = self._is_sampled(number)
            rest |= not sampled
            bits = ~np.isnan(evaluate(base, [features[example] for example in examples]))
            mask = bits.astype(np.float64)
            own_mask = mask if own.size == len(mask) else mask[own]
            self._present += _overlaps(bits, own)
            x = self._room[:, : base.shape[1]]
            for marginals, first, last, masks in (
                (self._kept, 0, kept, own_mask),
                (self._judged, kept, len(features), mask),
            ):
                for start in range(first, last, self._tile):
                    stop = min(start + self._tile, last)
                    # Outside of the sample no one needs all features at once: one tile stays in the cache.
                    out = x[start:stop] if sampled else x[: stop - start]
                    tile = self._evaluate(base, np.arange(start, stop), out)
                    marginals.add(slice(start - first, stop - first), tile, masks, sampled)
            if sampled:
                self._cross += np.matmul(x, x[kept:].T, out=part)
        return rest

    def _undecided(self, limit: float) -> tuple[Positions, Positions]:
        """The pairs that may reach the limit: positions of the first, and of the second from K on."""
        firsts: list[Positions] = []
        seconds: list[Positions] = []
        for position in range(len(self._block.features) - self._block.kept):
            others = np.arange(self._block.kept + position)
            covariance, scale, defined = self._covariances(position, others)
            unseen = self._over_common(self._kept.unseen, self._judged.unseen, position, others)
            most = np.abs(covariance) + np.prod(np.sqrt(unseen), axis=0)
            may = defined & (most >= (limit - _SLACK) * scale)
            self._cross[others[~may], position] = np.nan
            firsts.append(others[may].astype(np.int32))
            seconds.append(np.full(np.count_nonzero(may), position, dtype=np.int32))
        return np.concatenate(firsts), np.concatenate(seconds)

    def _sum_rest(self, firsts: Positions, seconds: Positions) -> None:
        """Completes the cross products of these pairs over the rows outside of the sample."""
        if not firsts.size:
            return
        kept = self._block.kept
        used = np.union1d(firsts, seconds + kept).astype(np.intp)
        old = int(np.searchsorted(used, kept))  # how many of those that are used are kept already
        columns = used[old:] - kept
        few = firsts.size * _DOT_COST < used.size * columns.size
        left, right = np.searchsorted(used, [firsts, seconds + kept]).tolist() if few else ([], [])
        for number, base in enumerate(self._table.batches(self._vectors)):
            if self._is_sampled(number):
                continue
            x = self._evaluate(base, used, self._room[: used.size, : base.shape[1]])
            if few:
                self._cross[firsts, seconds] += [
                    x[one] @ x[other] for one, other in zip(left, right, strict=True)
                ]
            else:
                self._cross[np.ix_(used, columns)] += x @ x[old:].T

    def _is_sampled(self, number: int) -> bool:
        """Batches of the sample are spread evenly: rows are often sorted by source or by time."""
        return ceil((number + 1) * self._share) > ceil(number * self._share)

    def _evaluate(self, base: Floats, chosen: Indexes, out: Floats) -> Floats:
        """Shifted features of one batch, zero for null."""
        features = self._block.features
        evaluate(base, [features[index] for index in chosen], out)
        out -= self._shift[chosen]
        if np.isnan(base).any():
            np.copyto(out, 0.0, where=np.isnan(out))
        return out

    def _covariances(self, position: int, others: Indexes) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Of one feature with `others`: n covariances, what r divides them by, and whether r is defined."""
        own = self._block.patterns[self._block.kept + position]
        n = self._present[self._block.patterns[others], self._block.column[own]]
        sums = self._over_common(self._kept.sums, self._judged.sums, position, others)
        squares = self._over_common(self._kept.squares, self._judged.squares, position, others)
        variances = squares - sums**2 / np.maximum(n, 1)
        defined = (n >= MIN_VALUES) & (variances > _CONSTANT * squares).all(axis=0)
        scale = np.prod(np.sqrt(np.where(defined, variances, 1)), axis=0)
        return self._cross[others, position] - np.prod(sums, axis=0) / np.maximum(n, 1), scale, defined

    def _over_common(self, kept: Floats, judged: Floats, position: int, others: Indexes) -> Floats:
        """(2, others): of one feature, and of each other, the marginal over the rows that they share."""
        own = self._block.patterns[self._block.kept + position]
        old = others[others < self._block.kept]
        new = others[old.size :] - self._block.kept
        theirs = np.concatenate([kept[old, self._block.column[own]], judged[new, own]])
        return np.stack([judged[position, self._block.patterns[others]], theirs])


def _overlaps(bits: NDArray[np.bool_], own: Indexes) -> NDArray[np.float32]:
    """Rows that each pattern has in common with each of `own`. Single precision counts a batch exactly."""
    mask = bits.astype(np.float32)
    overlaps: NDArray[np.float32] = mask @ (mask if own.size == len(mask) else mask[own]).T
    return overlaps
