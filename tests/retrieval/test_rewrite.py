"""What a model makes of a question is kept to bounds, finds more, and does not decide what is an answer."""

from contextlib import closing
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alchemy.errors import BadInput
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Filters, Index
from alchemy.retrieval.rewrite import Rewrite, expand, expanded, parse_rewrite
from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions
from tests.retrieval.conftest import TEXTS, HashEmbedder, OverlapReranker

NARROW = SearchOptions(candidates=1, rerank=4, top_k=3)
PARAPHRASE = Rewrite(
    keywords=("screws", "torque"),
    sub_questions=("How tight are the screws of a Lantern?",),
    passage=TEXTS["documents:h"][2],
)


json_values = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=400),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=30,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("keywords", "sub_questions", "passage"), json_values))
)
def test_whatever_the_model_writes_the_bounds_hold(row: dict[str, object]) -> None:
    made = parse_rewrite(f"Sure!\n```json\n{orjson.dumps(row).decode()}\n```")
    assert len(made.keywords) <= 8
    assert len(made.sub_questions) <= 3
    assert len(made.passage.split()) <= 120
    assert len(made.passage) <= 1200
    for text in (*made.keywords, *made.sub_questions):
        assert text == " ".join(text.split())
        assert 0 < len(text) <= 200


@pytest.mark.parametrize("text", ["", "no JSON", "{", '{"keywords": [', "[1, 2]"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no JSON object"):
        parse_rewrite(text)


def test_other_words_find_what_the_questions_own_words_miss(searcher: Searcher) -> None:
    question = "How firmly must the cover be fastened?"

    def documents(rewrite: Rewrite | None) -> list[str]:
        found = searcher.search(question, NARROW, rewrite=rewrite)
        return [passage.chunk.document_id for passage in found.passages]

    assert "documents:h" not in documents(None)
    for part in (
        Rewrite(keywords=PARAPHRASE.keywords),
        Rewrite(sub_questions=PARAPHRASE.sub_questions),
        Rewrite(passage=PARAPHRASE.passage),
    ):
        assert "documents:h" in documents(part)
    assert documents(PARAPHRASE)[0] == "documents:h"
    assert documents(Rewrite()) == documents(None)


def test_a_filtered_search_stays_filtered(searcher: Searcher) -> None:
    mine = Filters(sources=("jira",))
    found = searcher.search("How firmly must the cover be fastened?", NARROW, mine, rewrite=PARAPHRASE)
    assert {passage.chunk.source for passage in found.passages} == {"jira"}


def test_a_passage_that_the_model_made_up_is_no_support(folder: Path) -> None:
    """Even where it is, word for word, a passage of the index."""
    with (
        closing(Index.open(folder)) as index,
        closing(Searcher(index, HashEmbedder(), OverlapReranker(), SearchWeights(quant=0))) as searcher,
    ):
        wide = SearchOptions(candidates=9, rerank=9, top_k=3)
        plain = searcher.search("Who won the chess championship?", wide)
        other = searcher.search("Who won the chess championship?", wide, rewrite=PARAPHRASE)
    assert not other.answerable
    assert other.relevance == pytest.approx(plain.relevance)
    assert other.passages[0].chunk.document_id == "documents:h"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["font", "cache", "screws", "restart", "nothing", "网关"]), max_size=4))
def test_evidence_with_other_words_is_never_lower_and_stays_in_its_range(
    searcher: Searcher, words: list[str]
) -> None:
    evidence, _ = searcher.gather("font cache", SearchOptions())
    some = Rewrite(tuple(words), (" ".join(words),) if words else (), " ".join(reversed(words)))
    extra = expand(some, searcher.index, HashEmbedder(), 5, None)
    more = expanded(evidence, extra, searcher.index)
    assert np.all(more.cosine >= evidence.cosine)
    assert np.all(more.bm25 >= evidence.bm25 - 1e-6)
    assert more.cosine.max() <= 1 + 1e-6
    assert more.bm25.max() <= 1
