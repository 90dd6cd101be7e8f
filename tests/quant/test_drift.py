import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alchemy.quant.drift import DriftReport, compare, measure_drift
from alchemy.quant.significance import benjamini_hochberg, chi_square_tail, kolmogorov_tail
from alchemy.quant.sketch import Sketch, read_sketch, sketch_numbers, sketch_table, write_sketch

Columns = dict[str, np.ndarray]


def drift(before: Columns, now: Columns) -> DriftReport:
    rows = len(next(iter(before.values())))
    sketch = Sketch(rows, tuple(sketch_numbers(name, values) for name, values in before.items()), ())
    return compare(sketch, len(next(iter(now.values()))), iter(now.items()), {})


def zeros(rng: np.random.Generator, rows: int, share: float) -> np.ndarray:
    return np.where(rng.random(rows) < share, 0.0, rng.exponential(3, rows))


def usual_columns(rng: np.random.Generator, rows: int) -> Columns:
    columns = {
        "normal": rng.normal(size=rows),
        "count": rng.poisson(3, rows).astype(float),
        "long_tail": rng.lognormal(0, 2, rows),
        "mostly_zero": zeros(rng, rows, 0.95),
        "one_value": np.full(rows, 7.0),
        "with_nulls": rng.random(rows),
    }
    columns["with_nulls"][rng.random(rows) < 0.3] = np.nan
    return columns


@pytest.mark.parametrize("rows", [300, 5000])
def test_half_a_deviation_and_fewer_zeros_are_drift_though_one_value_is_a_million(rows: int) -> None:
    rng = np.random.default_rng(1)
    before = {"shifted": rng.normal(0, 1, rows), "zeros": zeros(rng, rows, 0.95), "same": rng.random(rows)}
    now = {"shifted": rng.normal(0.5, 1, rows), "zeros": zeros(rng, rows, 0.80), "same": rng.random(rows)}
    for columns in (before, now):
        columns["shifted"][0] = columns["zeros"][0] = columns["same"][0] = 1e6
    report = drift(before, now)
    assert {one.column for one in report.drifted} == {"shifted", "zeros"}
    shifted = next(one for one in report.columns if one.column == "shifted")
    assert shifted.wasserstein == pytest.approx(0.5, abs=0.2)
    assert shifted.psi > max(shifted.threshold, 0.1)


@pytest.mark.parametrize("only_in", ["before", "now"])
def test_one_value_of_a_million_alone_is_no_drift(only_in: str) -> None:
    rng = np.random.default_rng(2)
    before, now = rng.normal(size=400), rng.normal(size=400)
    (before if only_in == "before" else now)[5] = 1e6
    assert not drift({"x": before}, {"x": now}).drifted


@pytest.mark.parametrize("rows", [25, 400])
def test_200_resamples_of_the_same_data_are_no_drift(rows: int) -> None:
    rng = np.random.default_rng(3)
    before = usual_columns(rng, rows)
    for _ in range(200):
        chosen = rng.integers(0, rows, rows)
        now = {name: values[chosen] for name, values in before.items()}
        assert not drift(before, now).drifted


@pytest.mark.parametrize(("before_rows", "now_rows"), [(25, 25), (60, 3000), (3000, 60), (500, 500)])
def test_fresh_draws_of_the_same_distributions_are_no_drift(before_rows: int, now_rows: int) -> None:
    rng = np.random.default_rng(5)
    fired = sum(
        bool(drift(usual_columns(rng, before_rows), usual_columns(rng, now_rows)).drifted) for _ in range(200)
    )
    assert fired <= 1  # one in a thousand is the rate that is promised


@pytest.mark.parametrize(("before_rows", "now_rows"), [(2000, 2000), (500, 3000)])
def test_psi_without_drift_is_chi_square_as_the_threshold_assumes(before_rows: int, now_rows: int) -> None:
    rng = np.random.default_rng(7)
    scaled, freedom, over = [], [], 0
    for _ in range(600):
        (one,) = drift({"x": rng.normal(size=before_rows)}, {"x": rng.normal(size=now_rows)}).columns
        scaled.append(one.psi / (1 / before_rows + 1 / now_rows))
        freedom.append(len(one.bins) - 1)
        over += one.psi > one.threshold
    assert np.mean(scaled) == pytest.approx(np.mean(freedom), rel=0.1)
    for quantile in (0.5, 0.9, 0.95):
        limit = stats.chi2.ppf(quantile, freedom)
        assert np.mean(np.array(scaled) <= limit) == pytest.approx(quantile, abs=0.07)
    assert over <= 5  # 0.6 are expected


@pytest.mark.parametrize("seed", range(5))
def test_the_distances_are_those_of_scipy_up_to_the_width_of_a_cell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, now = rng.normal(0, 2, 3000), rng.normal(0.3 * seed, 2, 2000)
    (one,) = drift({"x": before}, {"x": now}).columns
    assert one.ks == pytest.approx(stats.ks_2samp(before, now).statistic, abs=1 / 64)
    expected = stats.wasserstein_distance(before, now) / before.std()
    assert one.wasserstein == pytest.approx(expected, abs=0.05)


def test_counts_have_the_exact_ks_distance_because_their_values_are_atoms() -> None:
    rng = np.random.default_rng(4)
    before, now = rng.poisson(2, 900).astype(float), rng.poisson(3, 700).astype(float)
    before, now = np.minimum(before, 5), np.minimum(now, 5)
    (one,) = drift({"x": before}, {"x": now}).columns
    assert one.ks == pytest.approx(stats.ks_2samp(before, now).statistic, abs=1e-12)


def test_nulls_unseen_values_and_a_column_that_is_gone_are_drift() -> None:
    rng = np.random.default_rng(6)
    before = {"nulls": rng.random(500), "constant": np.full(500, 3.0), "gone": rng.random(500)}
    now = {"nulls": rng.random(500), "constant": np.full(500, 4.0), "new": rng.random(500)}
    now["nulls"][:100] = np.nan
    report = drift(before, {name: now[name] for name in ("nulls", "constant")})
    assert {one.column for one in report.drifted} == {"nulls", "constant", "gone"}
    assert report.gone == ("gone",)
    nulls = next(one for one in report.columns if one.column == "nulls")
    assert (nulls.nulls_before, nulls.nulls_now) == (0, 0.2)


def test_a_large_sample_makes_no_drift_of_a_change_that_is_too_small_to_matter() -> None:
    rng = np.random.default_rng(8)
    (one,) = drift({"x": rng.normal(0, 1, 200_000)}, {"x": rng.normal(0.05, 1, 200_000)}).columns
    assert one.p < 1e-9
    assert not one.drifted


def test_texts_are_compared_by_cramers_v(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    ids = [f"d{row}" for row in range(1000)]

    def table(name: str, git: float) -> list[Path]:
        source = rng.choice(["git", "jira", "feedback"], 1000, p=[git, 0.9 - git, 0.1])
        frame = pl.DataFrame({"document_id": ids, "source": source, "kind": "one", "size": rng.random(1000)})
        frame.write_parquet(tmp_path / name)
        return [tmp_path / name]

    reference = sketch_table(table("a.parquet", 0.3))
    assert not measure_drift(reference, table("b.parquet", 0.3)).drifted
    report = measure_drift(reference, table("c.parquet", 0.6))
    assert [one.column for one in report.drifted] == ["source"]
    (source,) = report.drifted
    assert {one.label for one in source.bins} == {"git", "jira", "feedback"}
    counts = [[round(1000 * one.reference), round(1000 * one.current)] for one in source.bins]
    assert source.cramers_v == pytest.approx(stats.contingency.association(np.array(counts)))


def test_a_sketch_is_the_same_bytes_again_and_is_read_back_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    frame = pl.DataFrame({"document_id": [str(row) for row in range(400)], "kind": ["a", None] * 200})
    columns = {name: pl.Series(values, nan_to_null=True) for name, values in usual_columns(rng, 400).items()}
    frame = frame.with_columns(**columns, nothing=pl.lit(None, pl.Float64))
    frame.write_parquet(tmp_path / "m.parquet")
    write_sketch([tmp_path / "m.parquet"], tmp_path)
    first = (tmp_path / "sketch.json").read_bytes()
    write_sketch([tmp_path / "m.parquet"], tmp_path)
    assert (tmp_path / "sketch.json").read_bytes() == first
    sketch = read_sketch(tmp_path / "sketch.json")
    assert sketch == sketch_table([tmp_path / "m.parquet"])
    assert len(first) < 20_000
    assert b"document_id" not in first
    report = measure_drift(sketch, [tmp_path / "m.parquet"])
    assert {one.psi for one in report.columns} == {0.0}
    assert {one.p for one in report.columns} == {1.0}


def test_no_rows_on_either_side_are_compared_without_a_verdict() -> None:
    some, none = {"x": np.arange(50.0)}, {"x": np.zeros(0)}
    for before, now in ((some, none), (none, some), (none, none)):
        assert not drift(before, now).drifted


_VALUES = st.one_of(
    st.integers(-3, 3).map(float), st.floats(-1e300, 1e300), st.sampled_from([math.nan, math.inf, -math.inf])
)


@settings(deadline=None)
@given(st.lists(_VALUES, max_size=60), st.lists(_VALUES, max_size=60), st.integers(0, 60))
def test_every_row_is_in_one_cell_and_batches_add_up(before, now, cut) -> None:
    sketch = sketch_numbers("x", np.array(before, dtype=float))
    assert sketch.nulls + sketch.counts.present == len(before) == sketch.rows
    again = sketch.count(np.array(before, dtype=float))
    np.testing.assert_array_equal(again.cells, sketch.counts.cells)
    np.testing.assert_array_equal(again.atoms, sketch.counts.atoms)
    values = np.array(now, dtype=float)
    whole, parts = sketch.count(values), sketch.count(values[:cut]) + sketch.count(values[cut:])
    assert whole.nulls + whole.present == len(now)
    np.testing.assert_array_equal(whole.cells, parts.cells)
    np.testing.assert_array_equal(whole.atoms, parts.atoms)
    assert (whole.nulls, whole.below, whole.above) == (parts.nulls, parts.below, parts.above)
    if before and now:
        (one,) = drift({"x": np.array(before, dtype=float)}, {"x": values}).columns
        assert one.psi >= 0
        assert 0 <= one.p <= 1
        assert sum(each.reference for each in one.bins) == pytest.approx(1)
        assert sum(each.current for each in one.bins) == pytest.approx(1)


@settings(deadline=None)
@given(st.floats(0, 400), st.integers(1, 60))
def test_the_chi_square_tail_is_that_of_scipy(statistic: float, freedom: int) -> None:
    expected = stats.chi2.sf(statistic, freedom)
    assert chi_square_tail(statistic, freedom) == pytest.approx(expected, rel=1e-8, abs=1e-13)


def test_the_kolmogorov_tail_is_close_to_the_exact_one_of_scipy() -> None:
    for distance in (0.05, 0.1, 0.15, 0.25):
        exact = stats.kstwo.sf(distance, 200)
        assert kolmogorov_tail(distance, 400, 400) == pytest.approx(exact, rel=0.1, abs=1e-6)
    assert kolmogorov_tail(0.0, 5, 5) == 1.0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_are_those_of_scipy(p_values: list[float]) -> None:
    expected = stats.false_discovery_control(p_values)
    assert benjamini_hochberg(p_values) == pytest.approx(list(expected))


def test_bins_are_named_after_the_values_that_they_hold() -> None:
    rng = np.random.default_rng(11)
    before, now = zeros(rng, 2000, 0.95), zeros(rng, 2000, 0.80)
    before[:200] = np.nan
    (one,) = drift({"x": before}, {"x": now}).columns
    assert [each.label for each in one.bins] == ["null", "= 0", "more"]
