from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.retrieval import fuse
from alchemy.retrieval.fuse import Evidence, SearchWeights

share = st.floats(0, 1, width=32)
weights = st.builds(SearchWeights, share, share, share, share)


@st.composite
def evidence(draw: st.DrawFn) -> Evidence:
    size = draw(st.integers(1, 6))

    def column(values: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32)

    return Evidence(
        ids=np.arange(size),
        cosine=column(st.floats(-1, 1, width=32)),
        bm25=column(share),
        coverage=column(share),
        exact=column(share),
        named=column(share),
        logit=column(st.floats(-12, 12, width=32) | st.just(float("nan"))),
        quant=column(share | st.just(float("nan"))),
        embedder_reads=draw(share),
        reranker_reads=draw(share),
    )


@given(evidence(), weights)
def test_every_score_is_in_the_unit_interval(found: Evidence, tuned: SearchWeights) -> None:
    for scores in (fuse.final_scores(found, tuned), fuse.relevance(found, tuned), fuse.support(found, tuned)):
        assert np.all((scores >= 0) & (scores <= 1 + 1e-6))


@given(
    evidence(), weights, st.sampled_from(["cosine", "bm25", "coverage", "exact", "named", "logit", "quant"])
)
def test_more_of_any_evidence_never_lowers_a_score(found: Evidence, tuned: SearchWeights, name: str) -> None:
    better = replace(found, **{name: getattr(found, name) + np.float32(0.25)})
    if name == "exact" and not found.exact.any():
        return  # a query without identifiers is on another scale
    assert np.all(fuse.final_scores(better, tuned) >= fuse.final_scores(found, tuned) - 1e-6)
    assert np.all(fuse.support(better, tuned) >= fuse.support(found, tuned) - 1e-6)


@given(evidence(), weights)
def test_a_document_without_metrics_is_neutral(found: Evidence, tuned: SearchWeights) -> None:
    plain = replace(found, quant=np.full_like(found.quant, np.nan), exact=np.zeros_like(found.exact))
    assert np.array_equal(fuse.final_scores(plain, tuned), fuse.relevance(plain, tuned))


@given(evidence(), weights)
def test_at_a_share_of_a_half_a_passage_with_all_identifiers_is_never_below_one_with_none(
    found: Evidence, tuned: SearchWeights
) -> None:
    exact = np.zeros_like(found.exact)
    exact[0] = 1
    scores = fuse.final_scores(replace(found, exact=exact), replace(tuned, exact=0.5))
    assert np.all(scores[0] >= scores[1:] - 1e-6)


def test_the_contract_formula() -> None:
    scores = fuse.with_quant(np.array([0.8, 0.8], np.float32), np.array([0.5, np.nan], np.float32), 0.3)
    assert scores == pytest.approx([0.7 * 0.8 + 0.3 * 0.5, 0.8])


def test_what_a_model_cannot_read_is_left_to_keywords() -> None:
    one = np.ones(1, np.float32)
    found = Evidence(np.arange(1), one, 0.2 * one, 0.3 * one, 0 * one, one, 9 * one, np.nan * one, 0.0, 0.0)
    assert fuse.relevance(found, SearchWeights()) == pytest.approx([0.2])
    assert fuse.support(found, SearchWeights()) == pytest.approx([0.3])


def test_equal_scores_are_ordered_by_id() -> None:
    assert fuse.descending(np.array([1, 2, 1], np.float32), np.array([5, 9, 3])).tolist() == [1, 2, 0]


def test_reciprocal_rank_fusion_by_hand() -> None:
    fused = fuse.reciprocal_rank_fusion([np.array([7, 8]), np.array([8])])
    assert fused == pytest.approx({7: 1 / 61, 8: 1 / 62 + 1 / 61})
