from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from alchemy.quant.features import build_features
from alchemy.quant.insight import SCORE, write_insights
from alchemy.quant.labels import Label
from alchemy.quant.logistic import auc
from alchemy.records import Insight, read_lines
from alchemy.settings import QuantOptions

ROWS = 400
COLUMNS = ("comments", "votes", "watches", "words", "links")


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    rng = np.random.default_rng(5)
    ids = [f"jira:{row}" for row in range(ROWS)]
    values = {name: rng.random(ROWS) for name in COLUMNS}
    return pl.DataFrame({"document_id": ids, "source": "jira", "kind": "issue", **values})


@pytest.fixture(scope="module")
def features(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    frame.write_parquet(folder / "metrics.parquet")
    build_features([folder / "metrics.parquet"], folder, QuantOptions())
    return folder


def scored(features: Path, folder: Path, labels: list[Label]) -> tuple[dict, dict[str, float]]:
    """What `score.json` says, and the scores of the documents."""
    folder.mkdir(exist_ok=True)
    paths = [features / "part-00000.parquet"], [features / "metrics.parquet"]
    write_insights(*paths, folder, QuantOptions(), labels)
    insights = read_lines(Insight, folder / "part-00000.jsonl")
    told = orjson.loads((folder / SCORE).read_bytes())
    return told, {insight.document_id: insight.score for insight in insights}


def judged(frame: pl.DataFrame, chance: np.ndarray, each: int = 1, seed: int = 6) -> list[Label]:
    """`each` labels of every document, that helped with its chance."""
    drawn = np.random.default_rng(seed).random((each, ROWS)) < chance
    return [
        Label(document_id, bool(helped))
        for row in drawn
        for document_id, helped in zip(frame["document_id"], row, strict=True)
    ]


@pytest.fixture(scope="module")
def few_words_help(frame: pl.DataFrame) -> list[Label]:
    return judged(frame, 0.05 + 0.9 * (1 - frame["words"].to_numpy()))


def test_what_people_found_helpful_is_learned_where_the_mean_percentile_is_wrong(
    frame: pl.DataFrame, features: Path, few_words_help: list[Label], tmp_path: Path
) -> None:
    told, scores = scored(features, tmp_path, few_words_help)
    assert told["score"] == "learned"
    assert told["auc_gain_low"] > 0.1
    assert told["auc_learned"] - told["auc_percentile"] == pytest.approx(told["auc_gain"], abs=1e-5)
    assert told["log_loss_learned"] < told["log_loss_percentile"]
    first = next(iter(told["learned"]["coefficients"]))
    assert "words" in first
    assert told["learned"]["coefficients"][first] < 0
    assert 0 <= min(scores.values()) <= max(scores.values()) <= 1
    order = np.array([scores[document_id] for document_id in frame["document_id"]])
    assert auc(order, (frame["words"].to_numpy() < 0.5).astype(float)) > 0.9


def test_the_score_is_a_calibrated_probability(
    frame: pl.DataFrame, features: Path, few_words_help: list[Label], tmp_path: Path
) -> None:
    scores = scored(features, tmp_path, few_words_help)[1]
    fresh = judged(frame, 0.05 + 0.9 * (1 - frame["words"].to_numpy()), each=20, seed=7)
    for low, high in ((0.0, 0.4), (0.4, 0.6), (0.6, 1.0)):
        some = [label for label in fresh if low <= scores[label.document_id] <= high]
        said = np.mean([scores[label.document_id] for label in some])
        assert np.mean([label.helped for label in some]) == pytest.approx(said, abs=0.1)


def test_the_published_numbers_make_the_published_scores(
    frame: pl.DataFrame, features: Path, few_words_help: list[Label], tmp_path: Path
) -> None:
    told, scores = scored(features, tmp_path, few_words_help)
    learned = told["learned"]
    table = pl.read_parquet(features / "part-00000.parquet")
    logits = np.full(ROWS, learned["intercept"])
    for name, weight in learned["coefficients"].items():
        values = table[name].to_numpy()
        logits += weight * ((np.argsort(np.argsort(values)) + 0.5) / ROWS - 0.5)
    curve = learned["calibration"]
    expected = np.interp(logits, curve["logit"], curve["probability"])
    got = [scores[document_id] for document_id in frame["document_id"]]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_labels_by_chance_change_no_score_and_the_reason_is_told(
    frame: pl.DataFrame, features: Path, tmp_path: Path
) -> None:
    told, scores = scored(features, tmp_path / "labeled", judged(frame, np.full(ROWS, 0.5)))
    assert told["score"] == "mean percentile"
    assert told["score_reason"] == "the gain over the mean percentile is not certain"
    assert told["auc_gain_low"] <= 0 <= told["auc_gain_high"]
    assert told["learned"] is None
    assert scores == scored(features, tmp_path / "plain", [])[1]


def test_what_is_remembered_of_a_document_is_no_gain(
    frame: pl.DataFrame, features: Path, tmp_path: Path
) -> None:
    always = np.random.default_rng(8).integers(0, 2, ROWS).astype(float)  # what people say of it every time
    labels = [label for label in judged(frame, always, each=20) if int(label.document_id[5:]) < 60]
    told = scored(features, tmp_path, labels)[0]
    assert (told["labels"], told["labeled_documents"]) == (1200, 60)
    assert told["auc_learned"] < 0.6
    assert told["score"] == "mean percentile"


def test_under_two_hundred_labels_nothing_is_learned(
    features: Path, few_words_help: list[Label], tmp_path: Path
) -> None:
    unknown = [Label("jira:gone", True)] * 50
    told, scores = scored(features, tmp_path / "labeled", few_words_help[:199] + unknown)
    assert told["score_reason"] == "199 labels of known documents, 200 are needed"
    assert (told["labels"], told["labeled_documents"]) == (199, 199)
    assert scores == scored(features, tmp_path / "plain", [])[1]


def test_labels_of_one_kind_are_not_learned_from(frame: pl.DataFrame, features: Path, tmp_path: Path) -> None:
    told = scored(features, tmp_path, judged(frame, np.ones(ROWS)))[0]
    assert told["score_reason"] == "labels of one kind are of 0 documents, 20 are needed"


def test_the_order_of_the_feedback_does_not_matter(
    features: Path, few_words_help: list[Label], tmp_path: Path
) -> None:
    labels = [*few_words_help, Label("jira:7", True), Label("jira:7", False)]
    scored(features, tmp_path / "one", labels)
    scored(features, tmp_path / "other", labels[::-1])
    for name in ("part-00000.jsonl", SCORE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_document_without_any_feature_has_no_score(
    frame: pl.DataFrame, few_words_help: list[Label], tmp_path: Path
) -> None:
    bare = frame.with_columns(
        [pl.when(pl.col("document_id") != "jira:3").then(pl.col(name)).alias(name) for name in COLUMNS]
    )
    bare.write_parquet(tmp_path / "metrics.parquet")
    build_features([tmp_path / "metrics.parquet"], tmp_path, QuantOptions())
    told, scores = scored(tmp_path, tmp_path / "insights", few_words_help)
    assert told["score"] == "learned"
    assert frame["document_id"].to_list() == sorted(
        [*scores, "jira:3"], key=lambda document_id: int(document_id.partition(":")[2])
    )
