import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.rag.hashing import SparseVector
from alchemy.rag.scoring import hybrid, overlap, reranked, sparse_share

QUESTION = SparseVector((1, 2), (1.0, -1.0))
RAREST = math.log(1 + 9.5 / 1.5)  # inverse frequency of a term that one of ten chunks holds


def test_the_contracts_weights() -> None:
    assert hybrid(0.5, 1.0) == pytest.approx(0.7 * 0.5 + 0.3)
    assert hybrid(-0.5, 1.0) == pytest.approx(0.3)
    assert reranked(0.5, 0.25) == pytest.approx(0.6 * 0.5 + 0.4 * 0.25)


def test_a_chunk_that_alone_holds_every_word_has_all_of_the_sparse_score() -> None:
    assert sparse_share(2 * RAREST, QUESTION, 10) == pytest.approx(1.0)
    assert sparse_share(RAREST, QUESTION, 10) == pytest.approx(0.5)
    assert sparse_share(3 * RAREST, QUESTION, 10) == 1.0
    assert sparse_share(-1.0, QUESTION, 10) == 0.0
    assert sparse_share(1.0, SparseVector((), ()), 10) == 0.0


@settings(deadline=None)
@given(st.floats(-100, 100), st.integers(0, 10**9), st.floats(-1, 1))
def test_scores_stay_on_their_scale(score: float, chunks: int, cosine: float) -> None:
    share = sparse_share(score, QUESTION, chunks)
    assert 0 <= share <= 1
    assert 0 <= hybrid(cosine, share) <= 1 + 1e-9


def test_overlap_is_shared_words_by_all_words() -> None:
    assert overlap("gateway retries", "The gateway retries calls") == pytest.approx(2 / 3)
    assert overlap("网关重试", "网关重试") == 1.0
    assert overlap("gateway", "invoice") == overlap("", "") == 0.0
