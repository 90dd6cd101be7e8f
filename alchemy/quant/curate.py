"""Curator: which features carry something that no feature before them carries.

Features are judged in their order. One is dropped when it has too few values, when (nearly) all its values
are one, or when its correlation with a feature *already kept* reaches the limit: that one is its witness.

Correlations are exact, over all rows where both features are present, and are summed in one pass over
batches of rows. What makes that small and stable:
- Columns of one source are null on the documents of the others, so few different null patterns exist. The
  sums that a pair needs over its common rows (n, sum, sum of squares) are one per feature and *pattern*;
  only the cross product is one per pair. Without nulls that is a single matrix product.
- Columns are scaled by powers of two (exact) and shifted by their mean before anything is summed, after
  Chan, Golub, LeVeque (1983), so a mean of 1e8 with a deviation of 1 loses nothing; sums with one shift
  merge by adding.
- Where the matrix of all pairs does not fit the memory, features are judged in blocks against the kept ones,
  one pass over the rows for each block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alchemy.quant.expand import Feature, Floats, batches, evaluate, factors
from alchemy.settings import QuantOptions

MIN_VALUES = 8  # fewer present values, or common ones of a pair, say nothing about a distribution
_CONSTANT = 1e-12  # a variance below this share of the mean square is rounding
_TOLERANCE = 1e-9  # of a correlation
_MANY_PATTERNS = 64
_SMALL_BLOCK = 192
Indexes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A feature that was left out: too_few_values, overflow, constant, near_constant or correlated."""

    feature: str
    reason: str
    witness: str | None = None  # the kept feature that makes this one redundant
    r: float | None = None  # their correlation


@dataclass(frozen=True, slots=True)
class _Survey:
    """What one pass over the base columns tells: (N, N) counts and means of the features of each pair."""

    present: NDArray[np.int64]  # rows where both columns have a value
    sums: Floats  # (N,) of scaled values
    products: Floats  # (N, N) of scaled values
    maximum: Floats  # (N,) largest magnitude, not scaled
    exponent: NDArray[np.int32]  # (N,) columns are divided by 2 ** exponent


@dataclass(frozen=True, slots=True)
class _Block:
    """Kept features followed by those to judge, with their null patterns renumbered from 0."""

    features: list[Feature]
    kept: int  # how many of `features` are kept already
    patterns: Indexes  # of each feature
    examples: Indexes  # of each pattern, the position of one feature
    own: Indexes  # the patterns that features to judge have
    column: Indexes  # of each pattern, its position in `own`, or -1

    @classmethod
    def of(cls, candidates: Sequence[Feature], kept: list[int], block: range, patterns: Indexes) -> "_Block":
        chosen = [*kept, *block]
        _, examples, local = np.unique(patterns[chosen], return_index=True, return_inverse=True)
        own = np.unique(local[len(kept) :])
        column = np.full(len(examples), -1)
        column[own] = np.arange(len(own))
        return cls([candidates[index] for index in chosen], len(kept), local, examples, own, column)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the rows for K kept features and a block of B; G null patterns, of which H in the block."""

    cross: Floats  # (K + B, B) sum of x * y
    block: Floats  # (B, G) sum of x over the rows of a pattern
    block_squares: Floats  # (B, G)
    kept: Floats  # (K, H)
    kept_squares: Floats  # (K, H)
    present: Floats  # (G, H) rows common to two patterns
    common: NDArray[np.int64]  # (B,) rows that hold the most common value


class Curator:
    """Judges features over the base columns of Parquet files inside `options.memory_mb`."""

    def __init__(self, paths: Sequence[Path], columns: Sequence[str], options: QuantOptions) -> None:
        self._paths = paths
        self._columns = columns
        self._options = options
        self._bytes = options.memory_mb << 19  # half for sums, half for a batch of rows
        self._survey = self._make_survey()

    def select(self, features: Sequence[Feature]) -> tuple[list[Feature], list[Dropped]]:
        """Returns the kept and the dropped features, each in the order of `features`."""
        dropped: dict[str, Dropped] = {}
        candidates: list[Feature] = []
        for feature in features:
            reason = self._unusable(feature)
            if reason:
                dropped[feature.name] = Dropped(feature.name, reason)
            else:
                candidates.append(feature)
        patterns = self._patterns(candidates)
        common = self._common_values(candidates)
        kept: list[int] = []
        start = 0
        while start < len(candidates):
            size = self._block_size(len(kept), len(candidates) - start, int(patterns.max()) + 1)
            block = _Block.of(candidates, kept, range(start, start + size), patterns)
            sums = self._accumulate(block, common[start : start + size])
            kept += [start + position for position in self._judge(block, sums, dropped)]
            start += size
        return [candidates[index] for index in kept], [
            dropped[feature.name] for feature in features if feature.name in dropped
        ]

    def _make_survey(self) -> _Survey:
        count = len(self._columns)
        rows = self._batch_rows(4 * count)
        maximum = np.zeros(count)
        for base in batches(self._paths, self._columns, rows):
            np.maximum(maximum, np.nan_to_num(np.abs(base)).max(axis=1), out=maximum)
        exponent = np.frexp(maximum)[1]
        present = np.zeros((count, count), dtype=np.int64)
        sums = np.zeros(count)
        products = np.zeros((count, count))
        for base in self._scaled(exponent, rows):
            mask = np.isfinite(base).astype(np.float64)
            filled = np.nan_to_num(base)
            present += (mask @ mask.T).astype(np.int64)
            sums += filled.sum(axis=1)
            products += filled @ filled.T
        return _Survey(present, sums, products, maximum, exponent)

    def _unusable(self, feature: Feature) -> str | None:
        left, right = feature.left, feature.right
        if self._survey.present[left, right if right >= 0 else left] < MIN_VALUES:
            return "too_few_values"
        if right >= 0:
            with np.errstate(over="ignore"):
                if not np.isfinite(self._survey.maximum[left] * self._survey.maximum[right]):
                    return "overflow"
        return None

    def _patterns(self, features: Sequence[Feature]) -> Indexes:
        """The null pattern of each feature, numbered as they appear; one number means equal nulls.

        Two columns are null on the same rows exactly when each has as many values as they have in common.
        """
        present = self._survey.present
        own = present.diagonal()
        same = (present == own[:, None]) & (present == own[None, :])
        column = same.argmax(axis=1)  # the first column with the same nulls stands for all
        numbers: dict[tuple[int, int], int] = {}
        result = np.empty(len(features), dtype=np.intp)
        for index, feature in enumerate(features):
            left = int(column[feature.left])
            right = int(column[feature.right]) if feature.right >= 0 else left
            if present[left, right] == own[left]:  # no value of left without one of right
                right = left
            elif present[left, right] == own[right]:
                left = right
            result[index] = numbers.setdefault((min(left, right), max(left, right)), len(numbers))
        return result

    def _common_values(self, features: Sequence[Feature]) -> Floats:
        """For each feature the only value that more than half of its rows can hold (Boyer-Moore votes).

        A value in most rows of a batch is the batch's median; the rest of the batch cancels against it.
        """
        value = np.full(len(features), np.nan)
        weight = np.zeros(len(features), dtype=np.int64)
        left, right = factors(features)
        width = 256
        for base in self._scaled(self._survey.exponent, self._batch_rows(4 * (width + len(self._columns)))):
            for start in range(0, len(features), width):
                part = slice(start, start + width)
                values = evaluate(base, left[part], right[part])
                for rows, members in _by_nulls(values):
                    compact = values[members][:, rows]
                    middle = np.partition(compact, rows.size // 2, axis=1)[:, rows.size // 2]
                    votes = 2 * (compact == middle[:, None]).sum(axis=1) - rows.size
                    _merge_votes(value, weight, members + start, middle, np.maximum(votes, 0))
        return value

    def _accumulate(self, block: _Block, common: Floats) -> _Sums:
        """One pass over the rows; `common` are the values to count, one for each feature of the block."""
        left, right = factors(block.features)
        shift = self._means(block.features)[:, None]
        kept, size = block.kept, len(block.features)
        examples, own = block.examples, block.own
        sums = _Sums(
            cross=np.zeros((size, size - kept)),
            block=np.zeros((size - kept, len(examples))),
            block_squares=np.zeros((size - kept, len(examples))),
            kept=np.zeros((kept, len(own))),
            kept_squares=np.zeros((kept, len(own))),
            present=np.zeros((len(examples), len(own))),
            common=np.zeros(size - kept, dtype=np.int64),
        )
        rows = self._batch_rows(3 * size + len(examples) + 4 * len(self._columns))
        for base in self._scaled(self._survey.exponent, rows):
            x = evaluate(base, left, right)
            _add(sums.common, (x[kept:] == common[:, None]).sum(axis=1))
            bits = np.isfinite(x[examples])
            mask = bits.astype(np.float64)
            own_mask = mask if own.size == len(mask) else mask[own]
            x -= shift
            np.copyto(x, 0.0, where=np.isnan(x))
            _add(sums.cross, x @ x[kept:].T)
            _add(sums.present, _overlaps(bits, own))
            _add(sums.block, x[kept:] @ mask.T)
            _add(sums.kept, x[:kept] @ own_mask.T)
            np.square(x, out=x)
            _add(sums.block_squares, x[kept:] @ mask.T)
            _add(sums.kept_squares, x[:kept] @ own_mask.T)
        return sums

    def _judge(self, block: _Block, sums: _Sums, dropped: dict[str, Dropped]) -> list[int]:
        """Decides on the features of one block, in order; returns the positions in it of those to keep."""
        alive = np.zeros(len(block.features), dtype=bool)
        alive[: block.kept] = True
        added = []
        for position, feature in enumerate(block.features[block.kept :]):
            pattern = block.patterns[block.kept + position]
            share = sums.common[position] / sums.present[pattern, block.column[pattern]]
            if share == 1 or share > 1 - self._options.min_variance_share:
                reason = "constant" if share == 1 else "near_constant"
                dropped[feature.name] = Dropped(feature.name, reason)
                continue
            others = np.flatnonzero(alive)
            r = _correlations(sums, block, position, others)
            best = int(np.abs(r).argmax()) if len(r) else -1
            if best >= 0 and abs(r[best]) >= self._options.max_correlation - _TOLERANCE:
                witness = block.features[others[best]].name
                dropped[feature.name] = Dropped(feature.name, "correlated", witness, round(float(r[best]), 6))
                continue
            alive[block.kept + position] = True
            added.append(position)
        return added

    def _means(self, features: Sequence[Feature]) -> Floats:
        """The mean of each (scaled) feature over its own rows: what is subtracted before summing."""
        left, right = factors(features)
        other = np.where(right >= 0, right, left)
        totals = np.where(right >= 0, self._survey.products[left, other], self._survey.sums[left])
        return totals / self._survey.present[left, other]

    def _scaled(self, exponent: NDArray[np.int32], rows: int) -> Iterator[Floats]:
        for base in batches(self._paths, self._columns, rows):
            yield np.ldexp(base, -exponent[:, None])

    def _batch_rows(self, vectors: int) -> int:
        """How many rows fit where each needs `vectors` doubles."""
        return int(np.clip(self._bytes // (8 * max(vectors, 1)), 64, 16_384))

    def _block_size(self, kept: int, left: int, patterns: int) -> int:
        """The most features whose sums against `kept` ones and each other fit the memory; at least one.

        With many null patterns each pair costs three products more. Then blocks are small: what one of them
        drops is not multiplied again, which is worth reading the rows once more.
        """
        if patterns > _MANY_PATTERNS:
            left = min(left, _SMALL_BLOCK)

        def doubles(size: int) -> int:
            every, own = min(patterns, kept + size), min(patterns, size)
            return (kept + size) * size * 2 + 2 * size * every + 2 * kept * own + every * own

        low, high = 1, left
        while low < high:
            middle = (low + high + 1) // 2
            if doubles(middle) * 8 <= self._bytes:
                low = middle
            else:
                high = middle - 1
        return low


def _by_nulls(values: Floats) -> Iterator[tuple[Indexes, Indexes]]:
    """Groups the rows of a (features, rows) matrix by their nulls: (present columns, features)."""
    present = np.isfinite(values)
    groups: dict[bytes, list[int]] = {}
    for index, bits in enumerate(np.packbits(present, axis=1)):
        groups.setdefault(bits.tobytes(), []).append(index)
    for members in groups.values():
        rows = np.flatnonzero(present[members[0]])
        if rows.size:
            yield rows, np.array(members, dtype=np.intp)


def _merge_votes(
    value: Floats, weight: NDArray[np.int64], at: Indexes, middle: Floats, votes: NDArray[np.int64]
) -> None:
    same = value[at] == middle
    stronger = ~same & (votes > weight[at])
    weight[at] = np.where(same, weight[at] + votes, np.abs(weight[at] - votes))
    value[at[stronger]] = middle[stronger]


def _correlations(sums: _Sums, block: _Block, position: int, others: Indexes) -> Floats:
    """Pearson's r of one block feature with `others`, each over their common rows; 0 where undefined."""
    own, theirs = block.patterns[block.kept + position], block.patterns[others]
    here = block.column[own]
    n = sums.present[theirs, here]
    is_kept = others < block.kept
    old, new = others[is_kept], others[~is_kept] - block.kept
    their_sum = np.concatenate([sums.kept[old, here], sums.block[new, own]])
    their_squares = np.concatenate([sums.kept_squares[old, here], sums.block_squares[new, own]])
    own_sum, own_squares = sums.block[position, theirs], sums.block_squares[position, theirs]
    safe = np.maximum(n, 1)
    variance = own_squares - own_sum**2 / safe
    their_variance = their_squares - their_sum**2 / safe
    covariance = sums.cross[others, position] - own_sum * their_sum / safe
    defined = (
        (n >= MIN_VALUES)
        & (variance > _CONSTANT * own_squares)
        & (their_variance > _CONSTANT * their_squares)
    )
    scale = np.sqrt(np.where(defined, variance, 1)) * np.sqrt(np.where(defined, their_variance, 1))
    return np.where(defined, np.clip(covariance / scale, -1, 1), 0.0)


def _overlaps(bits: NDArray[np.bool_], own: Indexes) -> NDArray[np.float32]:
    """Rows that each pattern has in common with each of `own`. Single precision counts a batch exactly."""
    mask = bits.astype(np.float32)
    overlaps: NDArray[np.float32] = mask @ (mask if own.size == len(mask) else mask[own]).T
    return overlaps


def _add(total: NDArray[Any], part: NDArray[Any]) -> None:
    total += part
