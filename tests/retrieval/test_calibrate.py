import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.retrieval.calibrate import (
    PRIOR,
    WRONGLY_ANSWERED,
    WRONGLY_DECLINED,
    Judged,
    best_weights,
    calibrate_abstention,
    mean_ndcg,
    tune_weights,
)
from alchemy.retrieval.evaluate import Question, evaluate, interval, ndcg, recall, reciprocal_rank
from alchemy.retrieval.fuse import Evidence, SearchWeights
from alchemy.retrieval.index import Index
from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions
from tests.retrieval.conftest import TEXTS, HashEmbedder, OverlapReranker

scores = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30)


def judged(count: int, *, keywords_are_right: bool) -> list[Judged]:
    """Questions where either the keyword score or the cosine points at the right document."""
    right, wrong = np.array([0.9, 0.1], np.float32), np.array([0.1, 0.9], np.float32)
    none = np.full(2, np.nan, np.float32)
    evidence = Evidence(
        ids=np.arange(2),
        cosine=wrong if keywords_are_right else right,
        bm25=right if keywords_are_right else wrong,
        coverage=right,
        exact=np.zeros(2, np.float32),
        named=np.ones(2, np.float32),
        logit=none,
        quant=none,
    )
    return [Judged(evidence, ("a", "b"), frozenset({"a"}))] * count


def test_ndcg_by_hand() -> None:
    expected = (1 / math.log2(2) + 1 / math.log2(4)) / (1 / math.log2(2) + 1 / math.log2(3))
    assert ndcg(["a", "x", "b"], {"a", "b"}) == pytest.approx(expected)
    assert ndcg(["x"] * 10 + ["a"], {"a"}) == 0
    assert ndcg([], {"a"}) == 0


def test_recall_and_reciprocal_rank_by_hand() -> None:
    assert recall(["a", "x", "b"], {"a", "b", "c"}, 2) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "a"], {"a"}) == 0.5
    assert reciprocal_rank(["x"] * 10 + ["a"], {"a"}) == 0


def test_the_interval_holds_the_mean_and_is_the_same_each_time() -> None:
    values = [0.0, 1.0] * 20
    assert interval(values) == interval(values)
    assert interval(values).low < interval(values).mean == 0.5 < interval(values).high
    assert interval([]).mean == 0


def test_many_questions_move_the_weights_to_what_is_right() -> None:
    questions = judged(1000, keywords_are_right=True)
    tuned = best_weights(questions, SearchWeights(), rerank=20)
    assert tuned.lexical >= 0.5
    assert mean_ndcg(questions, tuned, 20) == 1


def test_weights_stay_where_they_are_when_they_are_as_good_as_any() -> None:
    assert best_weights(judged(1000, keywords_are_right=False), SearchWeights(), 20) == SearchWeights()


def test_one_question_moves_the_weights_by_little() -> None:
    tuned = best_weights(judged(1, keywords_are_right=True), SearchWeights(), 20)
    assert abs(tuned.lexical - SearchWeights().lexical) <= 0.21


def test_of_all_thresholds_that_separate_the_lowest_is_taken() -> None:
    threshold = calibrate_abstention([0.6, 0.8, 0.9] * 5, [0.1, 0.2, 0.4] * 5)
    assert threshold == pytest.approx(0.4)
    assert threshold > 0.4


def test_where_the_kinds_overlap_answerable_questions_go_first() -> None:
    positives = [0.3, *[0.5] * 18]
    assert calibrate_abstention(positives, [0.7] * 20) == 0.5
    assert calibrate_abstention([0.3, 0.3, *positives], [0.7] * 20) == 0.3


def test_few_questions_lean_on_the_default_threshold() -> None:
    measured = calibrate_abstention([0.8] * 3, [0.6] * 3, default=0.4)
    assert measured == pytest.approx((3 * 0.8 + PRIOR * 0.4) / (3 + PRIOR))
    assert calibrate_abstention([], [0.4], default=0.3) == 0.3


@given(scores, scores)
def test_no_more_answerable_questions_are_declined_than_allowed(
    positives: list[float], negatives: list[float]
) -> None:
    threshold = calibrate_abstention(positives, negatives)
    assert np.sum(np.array(positives) < threshold) <= WRONGLY_DECLINED * (len(positives) + 1)


@pytest.mark.parametrize("n", [20, 49, 100])
def test_the_bounds_hold_for_questions_that_were_not_seen(n: int) -> None:
    draws = np.random.default_rng(n).beta(2, 2, (2000, 2, n + 1))
    answerable, others = draws[:, 0] * 0.4 + 0.6, draws[:, 1] * 0.4  # kinds that can be separated
    declined = answered = 0
    for positives, negatives in zip(answerable, others, strict=True):
        threshold = calibrate_abstention(positives[1:].tolist(), negatives[1:].tolist())
        declined += positives[0] < threshold
        answered += negatives[0] >= threshold
    assert declined / 2000 <= WRONGLY_DECLINED + 0.02
    assert answered / 2000 <= WRONGLY_ANSWERED + 0.02
    for positives in answerable:  # and kinds that cannot
        declined += positives[0] < calibrate_abstention(positives[1:].tolist(), positives[1:].tolist())
    assert declined / 2000 <= WRONGLY_DECLINED + 0.02


def test_a_searcher_is_tuned_and_evaluated_on_questions(searcher: Searcher) -> None:
    questions = [
        Question("Which font is missing in TIKA-4833?", ("jira:TIKA-4833",)),
        Question("How is a week on call paid?", ("confluence:3",)),
        Question("疫苗的温度范围", ("confluence:2",)),
    ]
    options = SearchOptions(candidates=9, rerank=9)
    weights = tune_weights(searcher, questions, options)
    assert 0 < weights.abstain_below < 1
    assert weights == tune_weights(searcher, questions, options)
    unknown = Question("Who won the chess championship in Lisbon?", ())
    report = evaluate(searcher, [*questions, unknown], options)
    assert report.questions == 4
    assert report.mrr_at_10.mean > 0.8
    assert report.recall_at_20.mean == 1
    assert (report.answered, report.declined) == (1.0, 1.0)


def test_without_questions_the_weights_stay(searcher: Searcher) -> None:
    assert tune_weights(searcher, [], SearchOptions()) == searcher.weights


def test_a_cross_encoder_that_misleads_is_tuned_away() -> None:
    (one,) = judged(1, keywords_are_right=True)
    misled = replace(one.evidence, cosine=one.evidence.bm25, logit=np.array([-8, 8], np.float32))
    tuned = best_weights([replace(one, evidence=misled)] * 1000, SearchWeights(lexical=0.5), rerank=20)
    assert tuned.rerank < 0.5
    unsure = replace(misled, bm25=np.array([0.51, 0.5], np.float32), cosine=np.full(2, 0.5, np.float32))
    tuned = best_weights([replace(one, evidence=unsure)] * 1000, SearchWeights(), rerank=20)
    assert tuned.rerank == 0


def test_the_threshold_of_a_search_without_cross_encoder_is_calibrated_without_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alchemy.retrieval.calibrate.RERANK_GRID", ())
    index, thresholds = Index.open(folder), []
    questions = [Question(text, (document,)) for document, (_, _, text) in TEXTS.items()]
    for reranker in (OverlapReranker(), None):
        searcher = Searcher(index, HashEmbedder(), reranker, SearchWeights(rerank=0))
        thresholds.append(tune_weights(searcher, questions, SearchOptions()).abstain_below)
        searcher.close()
    index.close()
    assert thresholds[0] == thresholds[1]
