"""Drift: whether a table's columns are still distributed as in the run whose sketch is the reference.

A column has drifted when the change is both real and large:
- Real: its p-value, corrected over all columns (Benjamini, Hochberg), is at most `FALSE_DISCOVERY`. For
  numbers it is the smaller of that of PSI and that of the Kolmogorov-Smirnov distance, times two; for
  texts that of Pearson's chi-square.
- Large: PSI, KS distance or Cramer's V reaches its floor. With many rows any change is real.

A fixed limit for PSI alone (the usual 0.1 or 0.25) fires on small samples by chance: without drift
PSI / (1/n + 1/m) is approximately chi-square with one degree less than there are bins (B. Yurdakul,
Statistical Properties of Population Stability Index, Western Michigan University, 2018).

Quantile bins make one value of 1e6 count as one row, whatever it does to a mean.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alchemy.quant.expand import Floats, read_columns
from alchemy.quant.scout import scout
from alchemy.quant.significance import benjamini_hochberg, chi_square_tail, kolmogorov_tail
from alchemy.quant.sketch import CategorySketch, NumericCounts, NumericSketch, Sketch, count_categories

FALSE_DISCOVERY = 0.001  # of the columns that are said to have drifted; a run compares once a night
MIN_PSI = 0.1  # "some shift" in the usage of credit scoring (Siddiqi 2006)
MIN_KS = 0.1
MIN_V = 0.1  # "small" (Cohen 1988)
_BIN_SHARE = 0.1  # of the reference: ten bins
_MIN_EXPECTED = 10  # rows in a bin of either sample; at the usual 5 the tail of PSI is too heavy (tests)


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of PSI: its label and the share of rows in it, then and now."""

    label: str
    reference: float
    current: float


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """The measures of one column. What does not apply to it, or cannot be told, is None."""

    column: str
    psi: float
    threshold: float  # the PSI that chance exceeds once in 1 / FALSE_DISCOVERY times, for this column alone
    ks: float | None  # largest distance of the two distribution functions, over present values
    wasserstein: float | None  # area between them, in (winsorized) standard deviations of the reference
    cramers_v: float | None
    nulls_before: float
    nulls_now: float
    p: float  # for this column alone
    adjusted_p: float  # over all columns
    drifted: bool
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All columns of the reference, the most drifted first."""

    rows_before: int
    rows_now: int
    columns: tuple[ColumnDrift, ...]
    new: tuple[str, ...]  # columns without a reference
    gone: tuple[str, ...]  # columns that are in the reference alone; they count as all null

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        return tuple(column for column in self.columns if column.drifted)


def measure_drift(reference: Sketch, paths: Sequence[Path]) -> DriftReport:
    """Compares Parquet files with a sketch; reads a few columns at a time."""
    profile = scout(paths)
    texts = {column.name for column in profile.columns if column.text and column.name != "document_id"}
    known_numbers = {one.name for one in reference.numbers}
    known_texts = {one.name for one in reference.categories}
    numbers = read_columns(paths, [name for name in profile.numeric if name in known_numbers])
    categories = ((name, count_categories(paths, name)) for name in sorted(texts & known_texts))
    present = {*profile.numeric, *texts}
    return compare(
        reference,
        profile.rows,
        numbers,
        dict(categories),
        new=sorted(present - known_numbers - known_texts),
    )


def compare(
    reference: Sketch,
    rows: int,
    numbers: Iterator[tuple[str, Floats]],
    categories: Mapping[str, Mapping[str | None, int]],
    new: Sequence[str] = (),
) -> DriftReport:
    """Compares columns with a sketch; one of the sketch that is not among them counts as all null."""
    sketches = {one.name: one for one in reference.numbers}
    counted = {name: sketches[name].count(values) for name, values in numbers}
    gone = []
    measured: list[dict[str, Any]] = []
    for one in reference.numbers:
        if one.name not in counted:
            gone.append(one.name)
        now = counted.get(one.name) or one.count(np.full(rows, np.nan))
        measured.append(_numeric(one, now, rows))
    for category in reference.categories:
        if category.name not in categories:
            gone.append(category.name)
        measured.append(_categorical(category, categories.get(category.name, {None: rows}), rows))
    adjusted = benjamini_hochberg([one["p"] for one in measured])
    columns = [
        ColumnDrift(**one, adjusted_p=p, drifted=p <= FALSE_DISCOVERY and _is_large(one))
        for one, p in zip(measured, adjusted, strict=True)
    ]
    columns.sort(key=lambda one: (not one.drifted, -max(one.psi, one.ks or 0), one.column))
    return DriftReport(reference.rows, rows, tuple(columns), tuple(new), tuple(gone))


def _is_large(measures: Mapping[str, Any]) -> bool:
    if measures["cramers_v"] is not None:
        return bool(measures["cramers_v"] >= MIN_V)
    return bool(measures["psi"] >= MIN_PSI or (measures["ks"] or 0) >= MIN_KS)


def _numeric(sketch: NumericSketch, now: NumericCounts, rows: int) -> dict[str, Any]:
    before = sketch.counts
    bins = _pooled(list(_cells(sketch, before, now)), sketch.rows, rows)
    psi, threshold, psi_p = _psi(bins, sketch.rows, rows)
    ks, wasserstein = _distances(sketch, before, now)
    ks_p = 1.0 if ks is None else kolmogorov_tail(ks, sketch.rows - sketch.nulls, rows - now.nulls)
    return {
        "column": sketch.name,
        "psi": psi,
        "threshold": threshold,
        "ks": ks,
        "wasserstein": wasserstein,
        "cramers_v": None,
        "nulls_before": sketch.nulls / max(sketch.rows, 1),
        "nulls_now": now.nulls / max(rows, 1),
        "p": min(1.0, 2 * min(psi_p, ks_p)),
        "bins": bins,
    }


def _categorical(sketch: CategorySketch, now: Mapping[str | None, int], rows: int) -> dict[str, Any]:
    seen = [now.get(value, 0) for value in sketch.values]
    nulls = now.get(None, 0)
    cells = [
        _Cell(value, before, after, alone=True)
        for value, before, after in zip(sketch.values, sketch.counts, seen, strict=True)
    ]
    cells.append(_Cell("other", sketch.others, rows - nulls - sum(seen), alone=True))
    cells.append(_Cell("null", sketch.nulls, nulls, alone=True))
    bins = _pooled(cells, sketch.rows, rows)
    psi, threshold, _ = _psi(bins, sketch.rows, rows)
    statistic = _pearson(bins, sketch.rows, rows)
    return {
        "column": sketch.name,
        "psi": psi,
        "threshold": threshold,
        "ks": None,
        "wasserstein": None,
        "cramers_v": math.sqrt(statistic / max(sketch.rows + rows, 1)),
        "nulls_before": sketch.nulls / max(sketch.rows, 1),
        "nulls_now": nulls / max(rows, 1),
        "p": chi_square_tail(statistic, len(bins) - 1),
        "bins": bins,
    }


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell before pooling. One that is `alone` (null, an atom, unseen) is a bin by itself if it may."""

    label: str
    before: int
    now: int
    alone: bool
    joined: str = "others"  # the label of a bin of several cells that ends here


def _cells(sketch: NumericSketch, before: NumericCounts, now: NumericCounts) -> Iterator[_Cell]:
    """In order of value, the nulls first."""
    yield _Cell("null", before.nulls, now.nulls, alone=True)
    yield _Cell("below all", before.below, now.below, alone=True)
    for index, edge in enumerate(sketch.edges):
        to = f"<= {edge:.4g}"
        yield _Cell(to, int(before.cells[index]), int(now.cells[index]), alone=False, joined=to)
        if sketch.atoms[index]:
            atoms = int(before.atoms[index]), int(now.atoms[index])
            yield _Cell(f"= {edge:.4g}", *atoms, alone=True, joined=to)
    yield _Cell("above all", before.above, now.above, alone=True, joined="more")


def _pooled(cells: Sequence[_Cell], rows_before: int, rows_now: int) -> tuple[Bin, ...]:
    """Joins neighboring cells until each bin has enough rows of both samples if there is no drift."""
    if not rows_before or not rows_now:
        return ()
    smaller = min(rows_before, rows_now) / (rows_before + rows_now)

    def is_enough(before: int, now: int) -> bool:
        return (before + now) * smaller >= _MIN_EXPECTED

    bins: list[tuple[str, int, int]] = []
    label, before, now = "", 0, 0
    for cell in cells:
        if cell.alone and is_enough(cell.before, cell.now):
            bins.append((cell.label, cell.before, cell.now))
            continue
        if cell.before or cell.now:
            label = cell.joined if before or now else cell.label
            before, now = before + cell.before, now + cell.now
        if before >= _BIN_SHARE * rows_before and is_enough(before, now):
            bins.append((label, before, now))
            label, before, now = "", 0, 0
    if before or now:
        if bins and not is_enough(before, now):
            last = bins.pop()
            label, before, now = last[0], last[1] + before, last[2] + now
        bins.append((label, before, now))
    return tuple(Bin(name, then / rows_before, after / rows_now) for name, then, after in bins)


def _psi(bins: Sequence[Bin], rows_before: int, rows_now: int) -> tuple[float, float, float]:
    """PSI, its threshold and its p-value. Half a row stands for none, so that a logarithm exists."""
    if len(bins) < 2:
        return 0.0, 0.0, 1.0
    psi = 0.0
    for one in bins:
        p, q = max(one.reference, 0.5 / rows_before), max(one.current, 0.5 / rows_now)
        psi += (q - p) * math.log(q / p)
    scale = 1 / rows_before + 1 / rows_now
    freedom = len(bins) - 1
    return psi, _quantile(freedom) * scale, chi_square_tail(psi / scale, freedom)


def _quantile(freedom: int) -> float:
    """What chi-square exceeds with probability FALSE_DISCOVERY, by bisection."""
    low, high = 0.0, 20.0 + 5 * freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chi_square_tail(middle, freedom) > FALSE_DISCOVERY else (low, middle)
    return high


def _pearson(bins: Sequence[Bin], rows_before: int, rows_now: int) -> float:
    total = rows_before + rows_now
    statistic = 0.0
    for one in bins:
        share = (one.reference * rows_before + one.current * rows_now) / total
        if share:
            statistic += rows_before * (one.reference - share) ** 2 / share
            statistic += rows_now * (one.current - share) ** 2 / share
    return statistic


def _distances(
    sketch: NumericSketch, before: NumericCounts, now: NumericCounts
) -> tuple[float | None, float | None]:
    """KS distance at the edges, and Wasserstein's over the spread between the reference's outer quantiles."""
    edges = np.array(sketch.edges)
    was, is_now = _distribution(before), _distribution(now)
    if was is None or is_now is None:
        return None, None
    # Just under the smallest edge the reference has nothing yet.
    ks = float(np.abs(was - is_now).max(initial=now.below / now.present))
    if not sketch.spread or sketch.low is None or sketch.high is None:
        return ks, None
    at = np.clip(edges, sketch.low, sketch.high)
    # Between two edges a cell's rows lie anywhere: its share, without the atom at its end, is taken as even.
    before_atoms = np.abs((was - _atom_shares(before)) - (is_now - _atom_shares(now)))
    width = np.diff(at)
    area = float((width * (np.abs(was - is_now)[:-1] + before_atoms[1:]) / 2).sum())
    return ks, area / sketch.spread


def _distribution(counts: NumericCounts) -> NDArray[np.float64] | None:
    """The share of present values at or under each edge; None without values."""
    if not counts.present:
        return None
    shares: NDArray[np.float64] = (counts.below + np.cumsum(counts.cells + counts.atoms)) / counts.present
    return shares


def _atom_shares(counts: NumericCounts) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts.atoms / counts.present
    return shares
