from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.errors import ContractBroken
from alchemy.quant.features import build_features
from alchemy.quant.insight import write_insights
from alchemy.quant.percentiles import mean_percentile
from alchemy.records import Insight, read_lines
from alchemy.settings import QuantOptions


def insights(folder: Path, frame: pl.DataFrame) -> dict[str, Insight]:
    metrics = folder / "metrics.parquet"
    frame.write_parquet(metrics)
    build_features([metrics], folder, QuantOptions())
    write_insights([folder / "part-00000.parquet"], [metrics], folder, QuantOptions())
    return {insight.document_id: insight for insight in read_lines(Insight, folder / "part-00000.jsonl")}


def issues(rows: int, **columns) -> pl.DataFrame:
    ids = [f"jira:{row}" for row in range(rows)]
    return pl.DataFrame({"document_id": ids, "source": "jira", "kind": "issue", **columns}, strict=False)


def test_facts_name_the_standing_within_source_and_kind_and_the_value(tmp_path: Path) -> None:
    found = insights(tmp_path, issues(50, comments=[float(row) for row in range(50)]))
    assert found["jira:47"].facts == ("more comments than 94 % of jira issues (47)",)
    assert found["jira:0"].facts == ("fewer comments than 98 % of jira issues (0)",)
    assert found["jira:25"].facts == ()


def test_a_fact_compares_with_documents_of_the_same_kind_only(tmp_path: Path) -> None:
    values = [float(row) for row in range(20)]
    frame = pl.concat(
        [
            issues(20, size=values),
            issues(20, size=[1000 + value for value in values]).with_columns(
                document_id=pl.format("git:{}", pl.int_range(20)),
                source=pl.lit("git"),
                kind=pl.lit("pull_request"),
            ),
        ]
    )
    found = insights(tmp_path, frame)
    assert found["jira:19"].facts == ("a higher size than 95 % of jira issues (19)",)
    assert found["git:0"].facts == ("a lower size than 95 % of git pull requests (1000)",)
    assert found["git:0"].score == found["jira:0"].score


def test_groups_of_less_than_ten_documents_have_scores_and_no_facts(tmp_path: Path) -> None:
    found = insights(tmp_path, issues(9, votes=[float(row) for row in range(9)]))
    assert len(found) == 9
    assert not any(insight.facts for insight in found.values())


def test_the_score_is_the_mean_percentile_of_the_kept_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = 60
    votes, comments = rng.poisson(3, rows).astype(float), rng.random(rows)
    found = insights(tmp_path, issues(rows, votes=votes, comments=comments))
    features = pl.read_parquet(tmp_path / "part-00000.parquet").drop("document_id")
    expected = np.zeros(rows)
    for column in features:
        values = column.to_numpy()
        for row in range(rows):
            ties = (values == values[row]).sum()
            expected[row] += ((values < values[row]).sum() + ties / 2) / rows / features.width
    got = [found[f"jira:{row}"].score for row in range(rows)]
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_a_document_without_metrics_has_no_row(tmp_path: Path) -> None:
    values = [float(row) if row % 2 else None for row in range(40)]
    found = insights(tmp_path, issues(40, votes=values))
    assert sorted(found) == sorted(f"jira:{row}" for row in range(1, 40, 2))


def test_at_most_four_facts_most_extreme_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {f"counts_{index}s": rng.permutation(100).astype(float) for index in range(8)}
    for index, values in enumerate(columns.values()):
        position = int(np.flatnonzero(values == 92 + index)[0])
        values[[0, position]] = values[[position, 0]]
    facts = insights(tmp_path, issues(100, **columns))["jira:0"].facts
    assert facts == tuple(
        f"more counts {7 - rank}s than {99 - rank} % of jira issues ({99 - rank})" for rank in range(4)
    )


def test_the_same_metrics_give_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    frame = issues(300, votes=rng.poisson(1, 300), open_days=rng.random(300))
    insights(tmp_path, frame)
    first = (tmp_path / "part-00000.jsonl").read_bytes()
    insights(tmp_path, frame)
    assert (tmp_path / "part-00000.jsonl").read_bytes() == first


def test_features_of_other_metrics_are_refused(tmp_path: Path) -> None:
    issues(3, votes=[1.0, 2.0, 3.0]).write_parquet(tmp_path / "m.parquet")
    pl.DataFrame({"document_id": ["other"]}).write_parquet(tmp_path / "f.parquet")
    with pytest.raises(ContractBroken, match=r"f\.parquet"):
        write_insights([tmp_path / "f.parquet"], [tmp_path / "m.parquet"], tmp_path, QuantOptions())


def test_no_documents_write_an_empty_file(tmp_path: Path) -> None:
    frame = issues(0).with_columns(votes=pl.lit(0.0))
    assert insights(tmp_path, frame) == {}


@given(
    st.lists(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=3, max_size=3), min_size=1)
)
def test_a_score_lies_between_zero_and_one_or_is_undefined(rows: list[list[float]]) -> None:
    values = np.array(rows)
    scores = mean_percentile("abc", values)
    assert (np.isnan(scores) == np.isnan(values).all(axis=1)).all()
    assert ((scores[np.isfinite(scores)] >= 0) & (scores[np.isfinite(scores)] <= 1)).all()
