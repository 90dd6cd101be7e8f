import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.errors import BadInput
from alchemy.quant import curate
from alchemy.quant.correlate import MIN_VALUES
from alchemy.quant.features import FeatureReport, build_features
from alchemy.settings import QuantOptions


def write(folder: Path, columns: dict[str, np.ndarray], parts: int = 1) -> list[Path]:
    rows = len(next(iter(columns.values())))
    frame = pl.DataFrame({"document_id": [f"d:{row}" for row in range(rows)], "source": "s", "kind": "k"})
    frame = frame.with_columns(pl.Series(name, values, nan_to_null=True) for name, values in columns.items())
    paths = []
    for part in range(parts):
        path = folder / f"metrics-{part}.parquet"
        frame[rows * part // parts : rows * (part + 1) // parts].write_parquet(path, row_group_size=999)
        paths.append(path)
    return paths


def build(folder: Path, columns: dict[str, np.ndarray], parts: int = 1, **options) -> FeatureReport:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return build_features(write(folder, columns, parts), out, QuantOptions(**options))


def all_features(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The whole space by brute force, in the curator's order."""
    names = sorted(columns)
    features = {name: columns[name] for name in names}
    features |= {f"{name}^2": columns[name] ** 2 for name in names}
    features |= {f"{a}*{b}": columns[a] * columns[b] for a, b in itertools.combinations(names, 2)}
    return features


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """numpy's, over the rows where both are present; 0 where it is undefined."""
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if both.sum() < MIN_VALUES or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def brute_force(columns: dict[str, np.ndarray], options: QuantOptions) -> tuple[list[str], dict[str, tuple]]:
    kept: dict[str, np.ndarray] = {}
    dropped: dict[str, tuple] = {}
    for name, values in all_features(columns).items():
        present = values[np.isfinite(values)]
        if present.size < MIN_VALUES:
            dropped[name] = ("too_few_values", None, None)
            continue
        share = np.unique(present, return_counts=True)[1].max() / present.size
        if share == 1 or share > 1 - options.min_variance_share:
            dropped[name] = ("constant" if share == 1 else "near_constant", None, None)
            continue
        r = {other: correlation(column, values) for other, column in kept.items()}
        witness = max(r, key=lambda other: abs(r[other]), default=None)
        if witness and abs(r[witness]) >= options.max_correlation:
            dropped[name] = ("correlated", witness, r[witness])
        else:
            kept[name] = values
    return list(kept), dropped


def assert_as_brute_force(
    report: FeatureReport, columns: dict[str, np.ndarray], options: QuantOptions
) -> None:
    kept, dropped = brute_force(columns, options)
    assert list(report.kept) == kept
    assert [drop.feature for drop in report.dropped] == list(dropped)
    for drop in report.dropped:
        reason, witness, r = dropped[drop.feature]
        assert (drop.reason, drop.witness) == (reason, witness), drop
        assert drop.r is None if r is None else drop.r == pytest.approx(r, abs=2e-6)


def mixed_columns(seed: int, rows: int, null_share: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(3, 1, rows), rng.exponential(5, rows)
    columns = {
        "a": a,
        "almost_a": a + rng.normal(0, 0.02, rows),
        "b": b,
        "count": rng.poisson(2, rows).astype(float),
        "flag": (rng.random(rows) < 0.3).astype(float),
        "sum": a + b,
        "zero": np.zeros(rows),
    }
    for values in columns.values():
        values[rng.random(rows) < null_share] = np.nan
    return columns


@pytest.mark.parametrize("null_share", [0.0, 0.3])
def test_kept_dropped_and_witnesses_are_those_of_numpy_corrcoef(tmp_path: Path, null_share: float) -> None:
    columns = mixed_columns(1, 3000, null_share)
    options = QuantOptions(memory_mb=64)
    report = build(tmp_path, columns, parts=3, memory_mb=64)
    assert_as_brute_force(report, columns, options)
    assert {drop.reason for drop in report.dropped} == {"constant", "correlated"}
    assert report.counts["considered"] == len(all_features(columns))


def test_a_mean_of_1e8_costs_no_accuracy(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, 4000)
    columns = {"x": 1e8 + x, "y": 1e8 + 0.9 * x + rng.normal(0, 1, 4000), "z": -1e8 + rng.normal(0, 1, 4000)}
    columns["y"][::7] = np.nan
    report = build(tmp_path, columns, max_correlation=0.6)
    exact = correlation(columns["x"], columns["y"])
    assert 0.6 < exact < 0.7
    drop = next(drop for drop in report.dropped if drop.feature == "y")
    assert drop.r == pytest.approx(exact, abs=1e-5)
    # The square at this mean is a straight line of the column.
    squares = {drop.feature: drop.witness for drop in report.dropped if drop.feature.endswith("^2")}
    assert squares == {"x^2": "x", "y^2": "x", "z^2": "z"}
    assert list(report.kept) == brute_force(columns, QuantOptions(max_correlation=0.6))[0]


def test_columns_of_two_sources_have_no_product_and_do_not_drop_each_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.random(400), rng.random(400)
    x[200:] = np.nan
    y[:200] = np.nan
    report = build(tmp_path, {"commit_files": x, "issue_votes": y})
    assert report.kept[:2] == ("commit_files", "issue_votes")
    drops = {drop.feature: drop.reason for drop in report.dropped}
    assert drops["commit_files*issue_votes"] == "too_few_values"


def test_blocks_against_kept_features_decide_as_one_matrix_does(tmp_path: Path, monkeypatch) -> None:
    columns = mixed_columns(7, 800, null_share=0.2)
    whole = build(tmp_path, columns)
    for size in (1, 5, 16):
        monkeypatch.setattr(
            curate.Curator, "_block_size", lambda self, kept, left, n, size=size: min(size, left)
        )
        assert build(tmp_path, columns) == whole


def test_many_null_patterns_are_judged_in_small_blocks_and_as_by_brute_force(
    tmp_path: Path, monkeypatch
) -> None:
    rng = np.random.default_rng(13)
    columns = {f"c{index:02d}": rng.lognormal(0, 1, 600) for index in range(12)}
    for index in range(0, 12, 3):
        columns[f"c{index:02d}"] = 2 * columns[f"c{index + 1:02d}"] + rng.normal(0, 0.01, 600)
    for values in columns.values():
        values[rng.random(600) < 0.2] = np.nan
    monkeypatch.setattr(curate, "_SMALL_BLOCK", 7)
    sizes = []
    whole = curate.Curator._block_size
    monkeypatch.setattr(
        curate.Curator, "_block_size", lambda *given: (sizes.append(whole(*given)), sizes[-1])[1]
    )
    report = build(tmp_path, columns)
    assert max(sizes) == 7
    assert_as_brute_force(report, columns, QuantOptions())


def test_a_value_in_almost_every_row_makes_a_column_near_constant(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    signs = rng.choice([-1.0, 1.0], 5000)
    signs[[4, 900, 4000]] = 2.0  # the square is 1 in all other rows
    mostly = np.full(5000, 7.0)
    mostly[4990:] = rng.random(10)  # the share is 0.998 exactly: not over the limit
    rare = np.zeros(5000)
    rare[-9:] = rng.random(9)
    columns = {"signs": signs, "mostly": mostly, "rare": rare}
    report = build(tmp_path, columns)
    assert_as_brute_force(report, columns, QuantOptions())
    reasons = {drop.feature: drop.reason for drop in report.dropped}
    assert reasons["signs^2"] == reasons["rare"] == "near_constant"
    assert "mostly" in report.kept


def test_values_too_large_to_multiply_are_dropped_as_overflow(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    report = build(tmp_path, {"huge": rng.random(50) * 1e200, "small": rng.random(50)})
    assert {drop.feature: drop.reason for drop in report.dropped}["huge^2"] == "overflow"
    assert report.kept[:2] == ("huge", "small")


def test_infinities_count_as_null(tmp_path: Path) -> None:
    values = np.arange(40.0)
    frame = pl.DataFrame({"document_id": ["d"] * 40, "x": values, "y": np.where(values % 2, np.inf, -values)})
    frame.write_parquet(tmp_path / "m.parquet")
    report = build_features([tmp_path / "m.parquet"], tmp_path, QuantOptions())
    assert {drop.feature: drop.witness for drop in report.dropped}["y"] == "x"


def test_only_surviving_features_are_written_and_the_report_repeats(tmp_path: Path) -> None:
    columns = mixed_columns(11, 2000, null_share=0.1)
    report = build(tmp_path, columns, parts=2)
    frame = pl.read_parquet(tmp_path / "out" / "part-00000.parquet")
    assert frame.columns == ["document_id", *report.kept]
    expected = all_features(columns)
    for name in report.kept:
        np.testing.assert_array_equal(frame[name].fill_null(np.nan).to_numpy(), expected[name])
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    build(tmp_path, columns, parts=2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    assert orjson.loads(first["report.json"])["counts"] == report.counts


def test_too_many_columns_are_refused_with_the_count_and_the_setting(tmp_path: Path) -> None:
    columns = {f"c{index}": np.arange(9.0) for index in range(5)}
    with pytest.raises(BadInput, match=r"5 numeric columns.*max_base_columns=4"):
        build(tmp_path, columns, max_base_columns=4)


@pytest.mark.parametrize("rows", [0, 3])
def test_almost_no_rows_keep_nothing_and_still_write(tmp_path: Path, rows: int) -> None:
    report = build(tmp_path, {"x": np.arange(float(rows))})
    assert report.kept == ()
    assert pl.read_parquet(tmp_path / "out" / "part-00000.parquet").shape == (rows, 1)


def test_no_numeric_column_keeps_every_document(tmp_path: Path) -> None:
    pl.DataFrame({"document_id": ["a", "b"]}).write_parquet(tmp_path / "m.parquet")
    assert build_features([tmp_path / "m.parquet"], tmp_path, QuantOptions()).kept == ()
    assert pl.read_parquet(tmp_path / "part-00000.parquet")["document_id"].to_list() == ["a", "b"]


_VALUES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3).map(lambda v: round(v, 3)), st.none())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(_VALUES, min_size=3, max_size=3), min_size=9, max_size=40), st.integers(3, 10))
def test_witnesses_are_kept_and_kept_features_do_not_correlate(tmp_path_factory, rows, tenths) -> None:
    limit = tenths / 10
    matrix = np.array([[np.nan if v is None else v for v in row] for row in rows])
    columns = {name: matrix[:, index] for index, name in enumerate("abc")}
    report = build(tmp_path_factory.mktemp("p"), columns, max_correlation=limit)
    features = all_features(columns)
    assert len(report.kept) + len(report.dropped) == len(features)
    for drop in report.dropped:
        assert (drop.witness is not None) == (drop.reason == "correlated")
        if drop.witness:
            assert drop.witness in report.kept
            assert list(features).index(drop.witness) < list(features).index(drop.feature)
            assert abs(correlation(features[drop.feature], features[drop.witness])) >= limit - 1e-6
    for one, other in itertools.combinations(report.kept, 2):
        assert abs(correlation(features[one], features[other])) < limit + 1e-6


def test_200_000_rows_of_30_columns_stay_inside_the_memory_and_equal_brute_force(tmp_path: Path) -> None:
    rows, width = 200_000, 30
    rng = np.random.default_rng(17)
    columns = {f"c{index:02d}": rng.lognormal(0, 1, rows) for index in range(width)}
    for index in range(0, width, 3):
        columns[f"c{index:02d}"] = columns[f"c{index + 1:02d}"] * 2 + rng.normal(0, 0.01, rows)
    for index in range(width // 2):
        columns[f"c{index:02d}"][: rows // 2] = np.nan  # of another source
    paths = write(tmp_path, columns)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from alchemy.quant.features import build_features; from alchemy.settings import QuantOptions\n"
        "import alchemy.quant.insight\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "build_features([Path(sys.argv[1])], Path(sys.argv[2]), QuantOptions(memory_mb=64))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    (tmp_path / "out").mkdir()
    output = subprocess.run(
        [sys.executable, "-c", code, str(paths[0]), str(tmp_path / "out")],
        check=True,
        capture_output=True,
        text=True,
    )
    # All 495 features at once are 792 MB. Beside the working memory there are Polars' and BLAS' buffers.
    assert int(output.stdout) < 400_000
    report = orjson.loads((tmp_path / "out" / "report.json").read_bytes())
    features = all_features(columns)
    drops = {drop["feature"]: drop for drop in report["dropped"] if drop["r"] is not None}
    assert len(drops) >= 10
    for name, drop in itertools.islice(drops.items(), 0, None, 10):
        assert drop["r"] == pytest.approx(correlation(features[name], features[drop["witness"]]), abs=2e-6)
    for one, other in itertools.islice(itertools.combinations(report["kept"], 2), 0, None, 2500):
        assert abs(correlation(features[one], features[other])) < 0.95
