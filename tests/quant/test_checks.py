import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from dagster import AssetCheckResult, AssetCheckSeverity, DagsterInstance, materialize

from alchemy.artifacts import Request
from alchemy.assembly import COLUMNS
from alchemy.quant.expand import expand
from alchemy.quant.features import build_features, sampled_correlations
from alchemy.quant.pictures import correlation_picture
from alchemy.quant.sketch import read_sketch, write_sketch
from alchemy.records import write_lines
from alchemy.release import RECORD, Release, promote, release_line
from alchemy.retrieval.fuse import SearchWeights
from alchemy.settings import QuantOptions, Settings
from assets.checks import feature_drift, metrics_schema
from assets.quant import metrics, quant_features, quant_insights
from resources.store import StoreResource
from tests.quant.test_features import correlation
from tests.quant.test_measure import document

PNG = b"\x89PNG"


def store_in(folder: Path) -> StoreResource:
    return StoreResource(url=str(folder / "store"), cache=str(folder / "cache"))


def publish_metrics(
    store: StoreResource, seed: int, mean: float = 0.0, *, sketch: bool = True, **extra
) -> str:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "document_id": [f"git:{row}" for row in range(600)],
            "source": "git",
            "kind": "commit",
            "additions": rng.normal(mean, 1, 600),
            "投票 $x$": rng.poisson(3, 600).astype(float),
            **extra,
        }
    )

    def build(folder: Path) -> dict[str, Any]:
        frame.write_parquet(folder / "part-00000.parquet")
        if sketch:
            write_sketch([folder / "part-00000.parquet"], folder)
        return {"rows": frame.height}

    return made(store, "metrics", {}, build, seed)


def made(store: StoreResource, asset: str, inputs: dict[str, str], build: Any, seed: int = 0) -> str:
    request = Request(asset=asset, inputs=inputs, code_version="1", parameters={"seed": seed})
    return store.artifacts.materialize(request, build).artifact.version


def release(store: StoreResource, metrics: str) -> None:
    """A champion whose index goes back to these metrics through the insights, as in the real line."""

    def one_file(folder: Path) -> dict[str, Any]:
        (folder / "x").write_bytes(metrics.encode())
        return {"rows": 1}

    insights = made(store, "quant_insights", {"metrics": metrics}, one_file)
    index = made(store, "faiss_index", {"quant_insights": insights}, one_file)
    record = Release(index, {}, "base", "embedder", "reranker", SearchWeights(), "prompts", "evaluation")

    def release_file(folder: Path) -> dict[str, Any]:
        (folder / RECORD).write_bytes(release_line(record))
        return {"rows": 1}

    promote(store.artifacts, made(store, "release", {}, release_file), expected=None)


def check(result: Any) -> AssetCheckResult:
    assert isinstance(result, AssetCheckResult)
    return result


def test_without_a_champion_the_check_passes_and_says_so(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    publish_metrics(store, 1)
    result = check(feature_drift(store))
    assert result.passed
    assert result.metadata["reference"].value == "none: no release serves yet"


def test_a_release_from_before_sketches_is_no_reference(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    release(store, publish_metrics(store, 1, sketch=False))
    result = check(feature_drift(store))
    assert result.passed
    assert "older than sketches" in str(result.metadata["reference"].value)


def test_metrics_like_the_released_ones_pass_with_numbers_and_a_picture(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    released = publish_metrics(store, 1)
    release(store, released)
    publish_metrics(store, 2)
    result = check(feature_drift(store))
    assert result.passed
    assert result.metadata["reference"].value == released
    assert "additions" in str(result.metadata["columns"].value)
    assert str(result.metadata["plot"].value).startswith("![")


def test_a_shift_since_the_release_warns_and_names_the_column(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    release(store, publish_metrics(store, 1))
    publish_metrics(store, 2, mean=0.5, extra=[1.0] * 600)
    result = check(feature_drift(store))
    assert not result.passed
    assert result.severity is AssetCheckSeverity.WARN
    assert result.metadata["drifted"].value == ["additions"]
    assert result.metadata["new"].value == ["extra"]


def test_the_schema_check_counts_the_rows_that_break_each_rule(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    publish_metrics(store, 1)
    assert check(metrics_schema(store)).passed
    publish_metrics(store, 2, code_share=[2.0] * 600)
    result = check(metrics_schema(store))
    assert not result.passed
    assert "| code_share\\|max | 600 |" in str(result.metadata["broken"].value)


def test_the_heat_maps_hold_numpys_correlations(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    columns = {"a": rng.normal(1e6, 1, 900), "b": rng.random(900), "c": np.full(900, 2.0)}
    columns["b"][::5] = np.nan
    pl.DataFrame(
        {"document_id": "d", **{name: pl.Series(v, nan_to_null=True) for name, v in columns.items()}}
    ).write_parquet(tmp_path / "m.parquet")
    features = expand(sorted(columns))
    maps = sampled_correlations([tmp_path / "m.parquet"], sorted(columns), features)
    values = [columns[f.name[0]] * (columns[f.name[2]] if "*" in f.name else 1) for f in features]
    values = [v**2 if f.name.endswith("^2") else v for f, v in zip(features, values, strict=True)]
    for one, x in enumerate(values):
        for other, y in enumerate(values):
            assert maps[one, other] == (pytest.approx(correlation(x, y), abs=1e-6))
    report = build_features([tmp_path / "m.parquet"], tmp_path, QuantOptions())
    assert orjson.loads((tmp_path / "report.json").read_bytes())["kept"] == list(report.kept)
    assert correlation_picture(maps, maps[:0, :0]).startswith(PNG)


def test_a_release_whose_metrics_are_no_longer_kept_is_no_reference(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    released = publish_metrics(store, 1)
    release(store, released)
    publish_metrics(store, 2)
    shutil.rmtree(tmp_path / "store" / "processed" / "metrics.parquet" / released)
    result = check(feature_drift(store))
    assert result.passed
    assert released in str(result.metadata["reference"].value)


def test_the_assets_write_the_sketch_show_the_pictures_and_pass_their_checks(tmp_path: Path) -> None:
    store, rng = store_in(tmp_path), np.random.default_rng(3)
    sizes = rng.lognormal(0, 1, (60, 3)).round(3).tolist()

    def build(folder: Path) -> dict[str, Any]:
        rows = (
            document(number, {"a": a, "b": b, "sum": a + b, "code_share": min(1, c / 9)})
            for number, (a, b, c) in enumerate(sizes)
        )
        (folder / COLUMNS).write_bytes(orjson.dumps(["a", "b", "code_share", "sum"]))
        return {"rows": write_lines(folder / "part-00000.jsonl", rows)}

    made(store, "cleaned_corpus", {}, build)
    with DagsterInstance.ephemeral() as instance:
        result = materialize(
            [metrics, quant_features, quant_insights, metrics_schema, feature_drift],
            instance=instance,
            resources={"store": store, "settings": Settings()},
        )
    assert result.success
    assert {one.check_name: one.passed for one in result.get_asset_check_evaluations()} == {
        "metrics_schema": True,
        "feature_drift": True,
    }
    shown = result.asset_materializations_for_node("quant_features")[0].metadata
    assert str(shown["correlations"].value).startswith("![")
    published = store.artifacts.latest("metrics")
    assert [file.path for file in published.files] == ["part-00000.parquet", "sketch.json"]
    assert read_sketch(store.artifacts.fetch(published) / "sketch.json").rows == 60


def test_the_insights_learn_from_the_feedback_in_the_corpus_and_show_what_they_learned(
    tmp_path: Path,
) -> None:
    store, rng = store_in(tmp_path), np.random.default_rng(9)
    values = rng.random((240, 2)).round(4).tolist()

    def build(folder: Path) -> dict[str, Any]:
        issues = [document(number, {"votes": a, "words": b}) for number, (a, b) in enumerate(values)]
        said = [
            replace(
                document(number, {"rating": 1.0 if b < 0.5 else -1.0}, "feedback", "feedback"),
                fields={"citations": f'["jira:{number}"]'},
            )
            for number, (_, b) in enumerate(values)
        ]
        (folder / COLUMNS).write_bytes(orjson.dumps(["rating", "votes", "words"]))
        return {"rows": write_lines(folder / "part-00000.jsonl", [*issues, *said])}

    made(store, "cleaned_corpus", {}, build)
    with DagsterInstance.ephemeral() as instance:
        result = materialize(
            [metrics, quant_features, quant_insights],
            instance=instance,
            resources={"store": store, "settings": Settings()},
        )
    shown = result.asset_materializations_for_node("quant_insights")[0].metadata
    assert shown["score"].value == "learned"
    assert (shown["labels"].value, shown["labeled_documents"].value) == (240, 240)
    assert shown["auc_learned"].value > 0.9 > shown["auc_percentile"].value
    assert "words" in str(shown["top_features"].value).splitlines()[2]
