import itertools
import os
import re
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
from alchemy.quant import base, correlate, curate
from alchemy.quant.constants import common_shares
from alchemy.quant.correlate import MIN_VALUES
from alchemy.quant.expand import base_columns, expand
from alchemy.quant.features import FeatureReport, build_features
from alchemy.settings import QuantOptions


def write(folder: Path, columns: dict[str, np.ndarray], parts: int = 1, group: int = 999) -> list[Path]:
    rows = len(next(iter(columns.values())))
    frame = pl.DataFrame({"document_id": [f"d:{row}" for row in range(rows)], "source": "s", "kind": "k"})
    frame = frame.with_columns(pl.Series(name, values, nan_to_null=True) for name, values in columns.items())
    paths = []
    for part in range(parts):
        path = folder / f"metrics-{part}.parquet"
        frame[rows * part // parts : rows * (part + 1) // parts].write_parquet(path, row_group_size=group)
        paths.append(path)
    return paths


def build(folder: Path, columns: dict[str, np.ndarray], parts: int = 1, **options) -> FeatureReport:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return build_features(write(folder, columns, parts), out, QuantOptions(**options))


def all_features(columns: dict[str, np.ndarray], ratios: bool = False) -> dict[str, np.ndarray]:
    """The whole space by brute force, in the curator's order."""
    names = sorted(columns)
    features = {name: columns[name] for name in names}
    features |= {f"{name}^2": columns[name] ** 2 for name in names}
    features |= {f"{a}*{b}": columns[a] * columns[b] for a, b in itertools.combinations(names, 2)}
    if ratios:
        for a, b in itertools.permutations(names, 2):
            divisor = np.where(columns[b] == 0, np.nan, columns[b])
            features[f"{a}/{b}"] = columns[a] / divisor
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
    for name, values in all_features(columns, options.ratios).items():
        present = values[np.isfinite(values)]
        if present.size < MIN_VALUES:
            dropped[name] = ("too_few_values", None, None)
            continue
        share = np.unique(present, return_counts=True)[1].max() / present.size
        if share == 1 or share > 1 - options.min_variance_share:
            dropped[name] = ("constant" if share == 1 else "near_constant", None, None)
            continue
        r = {other: correlation(column, values) for other, column in kept.items()}
        most = max(map(abs, r.values()), default=0)
        witness = next((other for other in r if abs(r[other]) >= most - 1e-9), None)
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


@pytest.mark.parametrize("dot_cost", [0, 1e9])  # undecided pairs by dot products, or by a matrix product
@pytest.mark.parametrize("null_share", [0.0, 0.3])
@pytest.mark.parametrize("limit", [0.8, 0.95])
def test_a_sample_of_the_rows_decides_as_numpy_does_over_all(
    tmp_path: Path, monkeypatch, dot_cost: float, null_share: float, limit: float
) -> None:
    columns = mixed_columns(19, 3000, null_share)
    monkeypatch.setattr(base, "MAX_ROWS", 100)
    monkeypatch.setattr(correlate, "_DOT_COST", dot_cost)
    report = build(tmp_path, columns, parts=2, max_correlation=limit)
    assert_as_brute_force(report, columns, QuantOptions(max_correlation=limit))


def test_what_only_rows_outside_of_the_sample_show_is_found(tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(23)
    sampled = []
    whole = correlate.Correlations._is_sampled
    monkeypatch.setattr(
        correlate.Correlations,
        "_is_sampled",
        lambda self, number: (sampled.append((number, whole(self, number))), sampled[-1][1])[1],
    )
    monkeypatch.setattr(base, "MAX_ROWS", 100)
    columns = {"a": rng.normal(size=3000), "b": rng.normal(size=3000)}
    assert build(tmp_path, columns).kept[:2] == ("a", "b")
    for number, is_sampled in dict(sampled).items():
        rows = slice(100 * number, 100 * number + 100)
        if not is_sampled:
            columns["a"][rows] *= 10
            columns["b"][rows] = columns["a"][rows]
    assert 0 < sum(dict(sampled).values()) < 15
    report = build(tmp_path, columns)
    assert_as_brute_force(report, columns, QuantOptions())
    assert {drop.feature: drop.witness for drop in report.dropped}["b"] == "a"


def test_most_pairs_are_decided_by_the_sample_alone(tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(29)
    columns = {f"c{index}": rng.normal(size=8000) for index in range(8)}
    columns["c7"] = columns["c6"] + rng.normal(0, 0.01, 8000)
    pairs = []
    monkeypatch.setattr(base, "MAX_ROWS", 400)
    monkeypatch.setattr(correlate.Correlations, "_sum_rest", lambda self, *given: pairs.append(given))
    build(tmp_path, columns)
    ((firsts, seconds),) = pairs
    assert (6, 7) in set(zip(firsts.tolist(), seconds.tolist(), strict=True))
    assert len(firsts) < 15  # of 946: c7 with c6, and their squares and products


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.2]), st.sampled_from([0.0, 1e8]), st.integers(1, 10))
def test_each_correlation_is_numpys_or_proved_to_be_below_the_limit(
    tmp_path_factory, seed: int, null_share: float, mean: float, tenths: int
) -> None:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=700)
    columns = {
        name: mean + 10.0 ** rng.integers(-3, 4) * (common + rng.exponential(2 * rng.random(), 700))
        for name in "abcd"
    }
    for values in columns.values():
        values[rng.random(700) < null_share] = np.nan
    paths = write(tmp_path_factory.mktemp("c"), columns)
    features, limit = expand("abcd"), tenths / 10
    values = list(all_features(columns).values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "MAX_ROWS", 64)
        table = base.BaseTable(paths, base_columns("abcd"), features, 1 << 26)
        block = correlate.Block.of(features, [0, 1], range(2, 14), table.patterns(features))
        found = correlate.Correlations(table, block, limit)
    for position in range(12):
        for other, r in enumerate(found.of(position, np.arange(2 + position))):
            expected = correlation(values[2 + position], values[other])
            assert r == pytest.approx(expected, abs=1e-6) or (r == 0 and abs(expected) < limit)


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


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, -2.5, None]), min_size=8, max_size=400),
    st.sampled_from([0.0, 0.1, 0.4]),
)
def test_the_share_of_the_most_common_value_is_exact_where_it_matters(
    tmp_path_factory, column: list[float | None], rare: float
) -> None:
    values = np.array([np.nan if value is None else value for value in column])
    present = values[~np.isnan(values)]
    if not present.size:
        return
    paths = write(tmp_path_factory.mktemp("s"), {"x": values})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "MAX_ROWS", 64)
        table = base.BaseTable(paths, base_columns("x"), expand("x"), 1 << 26)
        found = common_shares(table, expand("x"), rare)
    for feature, share in zip([present, present**2], found, strict=True):
        expected = np.unique(feature, return_counts=True)[1].max() / feature.size
        assert share == expected if expected > 1 - rare or expected == 1 else share <= 1 - rare


@pytest.mark.parametrize("null_share", [0.0, 0.3])
def test_ratios_are_features_on_request_null_at_a_zero_and_judged_like_any_other(
    tmp_path: Path, null_share: float
) -> None:
    columns = mixed_columns(31, 1500, null_share)
    assert not [name for name in build(tmp_path, columns).kept if "/" in name]
    report = build(tmp_path, columns, ratios=True)
    assert report.counts["considered"] == len(all_features(columns, ratios=True)) == 35 + 42
    assert_as_brute_force(report, columns, QuantOptions(ratios=True))
    assert {"b/count", "count/b"} & set(report.kept)
    drops = {drop.feature: drop.reason for drop in report.dropped}
    assert (drops["a/zero"], drops["zero/a"]) == ("too_few_values", "constant")
    frame = pl.read_parquet(tmp_path / "out" / "part-00000.parquet")
    expected = all_features(columns, ratios=True)
    for name in report.kept:
        np.testing.assert_array_equal(frame[name].fill_null(np.nan).to_numpy(), expected[name])


def test_the_ratio_of_equal_columns_is_one_to_the_last_bit(tmp_path: Path) -> None:
    values = np.arange(1.0, 200.0)  # 49 * (1 / 49) is not 1
    report = build(tmp_path, {"x": values, "y": values, "z": values % 7}, ratios=True)
    drops = {drop.feature: drop.reason for drop in report.dropped}
    assert (drops["x/y"], drops["y/x"]) == ("constant", "constant")


def test_a_ratio_too_large_for_a_double_is_dropped_and_tiny_divisors_are_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(37)
    tiny, wide = (1 + rng.random((2, 60))) * 1e-200
    columns = {"huge": rng.random(60) * 1e200, "one": rng.random(60), "tiny": tiny, "wide": wide}
    columns["wide"][::2] = rng.random(30) * 1e150  # scaled by its smallest, it is infinite
    report = build(tmp_path, columns, ratios=True)
    drops = {drop.feature: drop.reason for drop in report.dropped}
    assert drops["huge/tiny"] == drops["huge/wide"] == "overflow"
    assert {"one/tiny", "one/wide"} <= set(report.kept)
    frame = pl.read_parquet(tmp_path / "out" / "part-00000.parquet")
    np.testing.assert_array_equal(frame["one/wide"], columns["one"] / columns["wide"])


@pytest.mark.parametrize(("name", "option"), [("x*y", {}), ("x^2", {}), ("x/y", {"ratios": True})])
def test_a_column_that_is_called_like_a_feature_is_refused(tmp_path: Path, name: str, option: dict) -> None:
    columns = {one: np.arange(20.0) for one in ("x", "y", name)}
    with pytest.raises(BadInput, match=f"{re.escape(name)} already"):
        build(tmp_path, columns, **option)


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


def test_columns_whose_names_hold_dots_are_columns_like_any_other(tmp_path: Path) -> None:
    columns = {"a": mixed_columns(3, 500)["a"], "a.b": mixed_columns(4, 500)["b"]}
    report = build(tmp_path, columns, parts=2)
    assert_as_brute_force(report, columns, QuantOptions())
    assert report.kept[:2] == ("a", "a.b")


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
    paths = write(tmp_path, columns, group=rows)
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
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # each thread of BLAS has buffers of its own
    )
    # All 495 features at once are 792 MB, and the table is 48 MB in a single row group.
    assert int(output.stdout) < 140_000
    report = orjson.loads((tmp_path / "out" / "report.json").read_bytes())
    features = all_features(columns)
    drops = {drop["feature"]: drop for drop in report["dropped"] if drop["r"] is not None}
    assert len(drops) >= 10
    for name, drop in itertools.islice(drops.items(), 0, None, 10):
        assert drop["r"] == pytest.approx(correlation(features[name], features[drop["witness"]]), abs=2e-6)
    for one, other in itertools.islice(itertools.combinations(report["kept"], 2), 0, None, 2500):
        assert abs(correlation(features[one], features[other])) < 0.95
