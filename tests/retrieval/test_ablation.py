from dataclasses import asdict

import numpy as np
import pytest

from alchemy.retrieval.ablation import SHARES, ablate_quant, render_ablation
from alchemy.retrieval.calibrate import Judged, mean_ndcg
from alchemy.retrieval.fuse import Evidence, SearchWeights

WEIGHTS = SearchWeights(quant=0.3)


def question(relevance: list[float], quant: list[float], right: int = 0) -> Judged:
    """Documents 0, 1, 2 ... with these first-stage scores and quant scores."""
    count = len(relevance)
    scores = np.array(relevance, np.float32)
    evidence = Evidence(
        ids=np.arange(count),
        cosine=scores,
        bm25=scores,
        coverage=np.ones(count, np.float32),
        exact=np.zeros(count, np.float32),
        named=np.ones(count, np.float32),
        logit=np.full(count, np.nan, np.float32),
        quant=np.array(quant, np.float32),
    )
    return Judged(evidence, tuple(map(str, range(count))), frozenset({str(right)}))


def drawn(seed: int, helpful: float, questions: int = 40) -> list[Judged]:
    """Questions over 30 documents, whose right one has a quant score that is higher by `helpful`."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(questions):
        relevance, quant = rng.random(30), rng.random(30) / 2
        relevance[0], quant[0] = rng.uniform(0.6, 1), quant[0] + helpful
        found.append(question(relevance.tolist(), quant.tolist()))
    return found


def test_each_row_is_what_a_search_with_that_share_finds() -> None:
    judged = drawn(1, 0.3)
    for row in ablate_quant(judged, WEIGHTS, 20).rows:
        weights = SearchWeights(quant=row.share)
        assert row.ndcg_at_10.mean == pytest.approx(mean_ndcg(judged, weights, 20))


def test_a_score_that_points_at_the_right_documents_is_shown_to_gain() -> None:
    ablation = ablate_quant(drawn(2, 0.5), WEIGHTS, 20)
    assert [row.share for row in ablation.rows] == list(SHARES)
    without, *_, most = ablation.rows
    assert (without.ndcg_gain.low, without.ndcg_gain.high) == (0, 0)
    assert most.ndcg_gain.low > 0
    assert most.recall_at_5.mean - without.recall_at_5.mean == pytest.approx(most.recall_gain.mean)
    assert "| 0.5 |" in render_ablation(asdict(ablation))[-1]
    assert render_ablation(asdict(ablation))[-1].count("**+") == 2


def test_a_score_by_chance_is_not_shown_to_gain() -> None:
    for row in ablate_quant(drawn(3, 0.0), WEIGHTS, 20).rows:
        assert row.ndcg_gain.low <= 0


def test_without_quant_scores_no_share_changes_anything() -> None:
    ablation = ablate_quant([question([0.5, 0.9], [np.nan, np.nan])] * 5, WEIGHTS, 20)
    assert (ablation.questions, ablation.with_quant) == (5, 0)
    assert {row.ndcg_at_10.mean for row in ablation.rows} == {ablation.rows[0].ndcg_at_10.mean}
    assert not any("**" in line for line in render_ablation(asdict(ablation)))


def test_questions_without_a_right_document_do_not_count() -> None:
    unanswerable = Judged(question([0.5], [0.5]).evidence, ("0",), frozenset())
    ablation = ablate_quant([unanswerable, question([0.9, 0.1], [0.5, 0.5])], WEIGHTS, 20)
    assert ablation.questions == 1
    assert ablation.rows[0].ndcg_at_10.mean == 1
