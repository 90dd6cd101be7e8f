from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from typer.testing import CliRunner

from alchemy.cli import app
from alchemy.errors import BadInput
from alchemy.quant.features import build_features
from alchemy.quant.tables import find_tables, profile_table
from alchemy.settings import QuantOptions

RUN = CliRunner()


def frame(rows: int = 300) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    x = rng.lognormal(0, 2, rows)
    return pl.DataFrame({"x": x, "y": rng.random(rows), "twice_x": 2 * x, "word": "some"}).with_columns(
        y=pl.when(pl.col("y") > 0.1).then("y")
    )


def json_of(*arguments: str | Path) -> dict:
    result = RUN.invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_quant_takes_a_table_without_ids_and_numbers_its_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    frame().write_parquet(path) if suffix == "parquet" else frame().write_csv(path)
    out = tmp_path / "new" / "out"
    answer = json_of("quant", "--input", path, "--output", out)
    assert (answer["rows"], answer["considered"]) == (300, 9)
    features = pl.read_parquet(answer["features"])
    assert features["document_id"].to_list() == [str(row) for row in range(300)]
    report = orjson.loads((out / "report.json").read_bytes())
    # Columns are judged by name, so "twice_x" stays and "x" repeats it.
    assert {drop["feature"]: drop["witness"] for drop in report["dropped"]}["x"] == "twice_x"
    assert features.columns == ["document_id", *report["kept"]]
    assert features["y"].null_count() == frame()["y"].null_count() > 0
    assert sorted(one.name for one in out.iterdir()) == ["final_features.parquet", "report.json"]


def test_quant_keeps_the_ids_that_a_table_has(tmp_path: Path) -> None:
    frame().with_columns(document_id=pl.format("d{}", pl.int_range(300))).write_csv(tmp_path / "t.csv")
    answer = json_of("quant", "--input", tmp_path / "t.csv", "--output", tmp_path)
    assert pl.read_parquet(answer["features"])["document_id"][7] == "d7"


def test_quant_takes_the_latest_version_of_a_folder_in_the_store(tmp_path: Path) -> None:
    home = tmp_path / "processed" / "metrics.parquet"
    for version, rows in (("old", 20), ("new", 40)):
        (home / version).mkdir(parents=True)
        frame(rows).write_parquet(home / version / "part-00000.parquet")
        (home / version / "sketch.json").write_text("{}")
    (home / "latest").write_text('{"version": "new", "fingerprint": "f"}')
    assert json_of("quant", "--input", home, "--output", tmp_path / "quant")["rows"] == 40
    assert json_of("scout", home)["rows"] == 40


def test_scout_says_the_same_of_parquet_and_csv_and_how_much_it_read(tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "t.parquet")
    frame().write_csv(tmp_path / "t.csv")
    parquet, csv = json_of("scout", tmp_path / "t.parquet"), json_of("scout", tmp_path / "t.csv")
    assert parquet["read"] == "footers only"
    assert csv["read"].startswith("all rows")
    for one, other in zip(parquet["columns"], csv["columns"], strict=True):
        assert {name: one[name] for name in ("column", "nulls", "min", "max")} == {
            name: other[name] for name in ("column", "nulls", "min", "max")
        }
    assert sum(column["bytes"] for column in parquet["columns"]) == parquet["bytes"] > 0
    assert "twice_x" in RUN.invoke(app, ["scout", str(tmp_path / "t.csv")]).stdout


def test_a_csv_column_that_turns_into_floats_late_is_one_of_floats(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n\n" + "1\n" * 20_000 + "0.5\nNA\n")
    (column,) = profile_table([tmp_path / "t.csv"]).columns
    assert (column.numeric, column.minimum, column.nulls) == (True, 0.5, 1)


@pytest.mark.parametrize("name", ["broken.parquet", "empty.csv", "folder", "missing.csv"])
def test_what_is_no_table_is_one_readable_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for command in (["scout", name], ["quant", "--input", name, "--output", "out"]):
        arguments = [str(tmp_path / one) if one in (name, "out") else one for one in command]
        result = RUN.invoke(app, arguments)
        assert result.exit_code == 1
        assert name in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_folder_with_both_kinds_is_refused(tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "t.parquet")
    frame().write_csv(tmp_path / "t.csv")
    with pytest.raises(BadInput, match="Parquet and CSV"):
        find_tables(tmp_path)


def test_logs_are_features_when_asked_for_and_judged_like_any_other(tmp_path: Path) -> None:
    table = frame().with_columns(
        document_id=pl.format("{}", pl.int_range(300)),
        signed=pl.int_range(300).cast(pl.Float64) * 1e6 - 1e8,
        x=pl.when(pl.col("x") < 50).then("x"),
    )
    table.write_parquet(tmp_path / "m.parquet")
    plain = build_features([tmp_path / "m.parquet"], tmp_path, QuantOptions())
    assert not [name for name in plain.kept if name.startswith("log(")]
    report = build_features([tmp_path / "m.parquet"], tmp_path, QuantOptions(logs=True))
    assert report.base_columns == plain.base_columns
    assert report.counts["considered"] == plain.counts["considered"] + 4
    assert "log(twice_x)" in report.kept
    drops = {drop.feature: drop.witness for drop in report.dropped}
    assert drops["log(x)"] == "x" or drops["log(x)"] == "log(twice_x)"
    made = pl.read_parquet(tmp_path / "part-00000.parquet")
    np.testing.assert_allclose(made["log(twice_x)"], np.log1p(table["twice_x"]), rtol=1e-12)
    signed = table["signed"].to_numpy()
    if "log(signed)" in made.columns:
        np.testing.assert_allclose(
            made["log(signed)"], np.sign(signed) * np.log1p(np.abs(signed)), rtol=1e-12
        )


def test_a_column_that_is_called_like_a_log_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"document_id": ["a"], "x": [1.0], "log(x)": [0.0]}).write_parquet(tmp_path / "m.parquet")
    with pytest.raises(BadInput, match=r"log\(x\) already"):
        build_features([tmp_path / "m.parquet"], tmp_path, QuantOptions(logs=True))
