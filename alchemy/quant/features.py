"""Scout, expand, curate, write: `metrics.parquet` in, `final_features.parquet` and its report out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow.parquet as pq

from alchemy.errors import BadInput
from alchemy.quant.curate import Curator, Dropped
from alchemy.quant.expand import Feature, Floats, base_columns, evaluate, expand, frames
from alchemy.quant.scout import scout
from alchemy.settings import QuantOptions

_SAMPLED_ROWS = 20_000
_CONSTANT = 1e-9


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """What was considered, kept and dropped; `kept` + `dropped` are all features, each once."""

    rows: int
    base_columns: tuple[str, ...]
    kept: tuple[str, ...]
    dropped: tuple[Dropped, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many features there were, how many stayed, and how many went for which reason."""
        reasons = Counter(drop.reason for drop in self.dropped)
        return {
            "considered": len(self.kept) + len(self.dropped),
            "kept": len(self.kept),
            **{f"dropped_{reason}": number for reason, number in sorted(reasons.items())},
        }

    def as_json(self) -> dict[str, Any]:
        """The report's file."""
        return {**asdict(self), "counts": self.counts}


def build_features(metrics: Sequence[Path], folder: Path, options: QuantOptions) -> FeatureReport:
    """Writes `part-00000.parquet` (document_id and the kept features) and `report.json` into `folder`.

    Reads row batches only, several times; memory follows `options.memory_mb`, not the rows.

    Raises:
        BadInput: no metrics, no `document_id` column, or more numeric columns than the options allow.
    """
    profile = scout(metrics)
    columns = profile.numeric
    if "document_id" not in {column.name for column in profile.columns}:
        raise BadInput(f"{metrics[0]}: has no column document_id")
    if len(columns) > options.max_base_columns:
        raise BadInput(
            f"{metrics[0]}: {len(columns)} numeric columns are more than max_base_columns="
            f"{options.max_base_columns}; set ALCHEMY_QUANT__MAX_BASE_COLUMNS or drop columns"
        )
    features = expand(columns, logs=options.logs, ratios=options.ratios)
    twice = sorted(name for name, number in Counter(one.name for one in features).items() if number > 1)
    if twice:
        raise BadInput(f"{metrics[0]}: has a column {twice[0]} already, the name of a feature; rename it")
    base = base_columns(columns, logs=options.logs, ratios=options.ratios)
    kept: list[Feature] = []
    dropped: list[Dropped] = []
    if columns:
        kept, dropped = Curator(metrics, base, features, options).select()
    _write(metrics, base, kept, folder / "part-00000.parquet", options.memory_mb)
    report = FeatureReport(
        rows=profile.rows,
        base_columns=columns,
        kept=tuple(feature.name for feature in kept),
        dropped=tuple(dropped),
    )
    (folder / "report.json").write_bytes(
        orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    )
    return report


def sampled_correlations(
    paths: Sequence[Path], columns: Sequence[str], features: Sequence[Feature]
) -> Floats:
    """Pearson's r of all pairs, (features, features), over evenly spaced rows; 0 where undefined.

    For a picture only: what is redundant is decided by `Curator` over all rows.
    """
    step = max(1, scout(paths).rows // _SAMPLED_ROWS)
    every = pl.scan_parquet(list(paths)).select(columns).gather_every(step)
    base = every.cast(pl.Float64).fill_null(np.nan).collect().to_numpy().T
    with np.errstate(over="ignore", invalid="ignore"):
        x = evaluate(base, features)
    mask = np.isfinite(x)
    n = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    largest = np.where(mask, np.abs(x), 0).max(axis=1, keepdims=True, initial=0)
    x = np.where(mask, x, 0) / np.where(largest > 0, largest, 1)
    x = np.where(mask, x - x.sum(axis=1, keepdims=True) / n, 0)
    weights = mask.astype(np.float64)
    common = np.maximum(weights @ weights.T, 1)
    sums, squares = x @ weights.T, x**2 @ weights.T
    variance = squares - sums**2 / common
    covariance = x @ x.T - sums * sums.T / common
    scale = np.sqrt(np.maximum(variance * variance.T, 0))
    defined = scale > _CONSTANT * np.sqrt(squares * squares.T)
    return np.where(defined, np.clip(covariance / np.where(defined, scale, 1), -1, 1), 0.0)


def _write(
    metrics: Sequence[Path], base: Sequence[pl.Expr], kept: Sequence[Feature], path: Path, memory_mb: int
) -> None:
    """Reads narrow batches and widens each alone: one wide lazy sink of a million rows takes gigabytes."""
    rows = max(64, min(16_384, (memory_mb << 18) // (8 * (len(kept) + len(base) + 8))))
    narrow = [pl.col("document_id").cast(pl.String), *base]
    wide = [pl.col("document_id"), *(feature.expression() for feature in kept)]
    empty = pl.scan_parquet(list(metrics)).head(0).select(narrow).select(wide)
    # Products hardly repeat: dictionaries of them cost as much time as all else, and some room. With bytes
    # of equal significance side by side, LZ4 comes near Zstandard's size without that (94 against 96 % of
    # log-normal products, 15 against 11 % of products of counts) in a quarter to a half of the time.
    writer = pq.ParquetWriter(
        path,
        empty.collect().to_arrow().schema,
        compression="lz4",
        use_dictionary=False,
        use_byte_stream_split=[feature.name for feature in kept],
    )
    with writer:
        for frame in frames(metrics, narrow, rows):
            writer.write_table(frame.select(wide).to_arrow())
