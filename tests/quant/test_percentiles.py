from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alchemy.quant.percentiles import Groups, ranked

ROWS = 3000


@pytest.fixture
def frame() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    values = {f"f{index}": rng.integers(0, 50, ROWS).astype(float) for index in range(40)}
    values["f7"][::3] = np.nan
    kinds = ["issue" if row % 2 else "commit" for row in range(ROWS)]
    return pl.DataFrame({"source": "jira", "kind": kinds, **values}).with_columns(pl.col("f7").fill_nan(None))


def test_rows_and_batches_are_parts_of_the_same_table(frame: pl.DataFrame, tmp_path: Path) -> None:
    frame.write_parquet(tmp_path / "features.parquet")
    names = [name for name in frame.columns if name.startswith("f")]
    with ranked([tmp_path / "features.parquet"], names, Groups(frame)) as table:
        batches = list(table.batches(memory_mb=1))
        some = np.array([2999, 0, 17])
        picked = table.rows(some)
    assert len(batches) > 2
    assert [start for start, _ in batches] == np.cumsum(
        [0, *(len(part) for _, part in batches[:-1])]
    ).tolist()
    whole = np.concatenate([part for _, part in batches])
    assert whole.shape == (ROWS, 40)
    np.testing.assert_array_equal(picked, whole[some])


def test_a_percentile_is_among_the_same_source_and_kind_and_counts_ties_by_half(
    frame: pl.DataFrame, tmp_path: Path
) -> None:
    frame.write_parquet(tmp_path / "features.parquet")
    with ranked([tmp_path / "features.parquet"], ["f7"], Groups(frame)) as table:
        found = table.rows(np.arange(ROWS))[:, 0]
    values, kinds = frame["f7"].to_numpy(), frame["kind"].to_numpy()
    assert (np.isnan(found) == np.isnan(values)).all()
    for row in (1, 4, 1000, 2999):
        others = values[(kinds == kinds[row]) & np.isfinite(values)]
        expected = ((others < values[row]).sum() + (others == values[row]).sum() / 2) / others.size
        assert found[row] == pytest.approx(expected)
