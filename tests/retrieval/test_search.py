from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from alchemy.errors import ContractBroken
from alchemy.records import Chunk
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.search import MAX_PER_DOCUMENT, Searcher
from alchemy.settings import SearchOptions
from tests.retrieval.conftest import HashEmbedder, OverlapReranker, make_chunk

OPTIONS = SearchOptions(candidates=5, rerank=4, top_k=3)


def found(searcher: Searcher, query: str, options: SearchOptions = OPTIONS) -> list[str]:
    return [p.chunk.document_id for p in searcher.search(query, options).passages]


def test_an_exact_identifier_brings_its_passages_to_the_top(searcher: Searcher) -> None:
    query = "what happens to the broker font cache after a restart, as in TIKA-4833?"
    assert set(found(searcher, query)[:2]) == {"jira:TIKA-4833", "jira:TIKA-4834"}
    assert found(searcher, "2.7.11")[0] == "git:a1"
    assert found(searcher, "org.apache.tika.Parser")[0] == "git:a1"


def test_a_chinese_question_finds_its_page(searcher: Searcher) -> None:
    assert found(searcher, "网关离线以后数据能保存多少天？")[0] == "confluence:1"


def test_a_date_is_found_in_another_form(searcher: Searcher) -> None:
    assert found(searcher, "2026-07-14")[0] == "confluence:3"


def test_a_question_about_something_else_is_declined(searcher: Searcher) -> None:
    assert searcher.search("How much is a week on call paid?", OPTIONS).answerable
    result = searcher.search("Who won the chess championship in Lisbon?", OPTIONS)
    assert not result.answerable
    assert result.relevance < 0.2


def test_another_number_of_the_same_name_is_declined(searcher: Searcher) -> None:
    known = searcher.search("How tight are the screws of a Lantern 2?", OPTIONS)
    unknown = searcher.search("How tight are the screws of a Lantern 1?", OPTIONS)
    assert known.answerable
    assert not unknown.answerable


def test_a_cross_encoder_that_does_not_help_is_not_asked(folder: Path) -> None:
    index, reranker = Index.open(folder), OverlapReranker()
    searcher = Searcher(index, HashEmbedder(), reranker, SearchWeights(rerank=0))
    result = searcher.search("How much is a week on call paid?", OPTIONS)
    assert result.passages[0].rerank is None
    assert reranker.asked == []
    searcher.close()
    index.close()


@pytest.mark.parametrize("query", ["", "   ", "？？", "the of and", "\x00"])
def test_a_query_without_content_is_declined_and_does_not_fail(searcher: Searcher, query: str) -> None:
    assert not searcher.search(query, OPTIONS).answerable


def test_one_document_does_not_fill_the_result_and_repeats_are_left_out(tmp_path: Path) -> None:
    notes = ["first", "second", "third", "fourth", "fifth"]
    long = [
        make_chunk("git:long", f"font cache note the {word} {word}{n}", n) for n, word in enumerate(notes)
    ]
    copies = [make_chunk(f"git:copy{n}", "font cache of the broker grows after restart") for n in range(3)]
    build_index(tmp_path, [*long, *copies], {}, HashEmbedder())
    index = Index.open(tmp_path)
    searcher = Searcher(index, HashEmbedder(), OverlapReranker(), SearchWeights())
    got = found(searcher, "font cache", SearchOptions(top_k=8))
    assert got.count("git:long") == MAX_PER_DOCUMENT
    assert sum(key.startswith("git:copy") for key in got) == 1
    searcher.close()
    index.close()


def test_passages_that_differ_in_an_identifier_alone_are_no_repeats(tmp_path: Path) -> None:
    text = "the font cache library of the broker and its gateway was raised from {} to {}"
    bumps = [("1.12.1", "1.12.2"), ("1.12.2", "1.12.3"), ("1.12.2", "1.12.3")]
    chunks = [make_chunk(f"git:bump{n}", text.format(*bump)) for n, bump in enumerate(bumps)]
    build_index(tmp_path, chunks, {}, HashEmbedder())
    index = Index.open(tmp_path)
    searcher = Searcher(index, HashEmbedder(), OverlapReranker(), SearchWeights())
    assert sorted(found(searcher, "font cache 1.12.2", SearchOptions())) == ["git:bump0", "git:bump1"]
    searcher.close()
    index.close()


def test_quant_breaks_ties_and_shows_in_the_passage(tmp_path: Path) -> None:
    chunks = [make_chunk(f"git:{name}", f"font cache {name} report") for name in ("low", "high")]
    build_index(tmp_path, chunks, {"git:low": 0.1, "git:high": 0.9}, HashEmbedder())
    index = Index.open(tmp_path)
    searcher = Searcher(index, HashEmbedder(), None, SearchWeights())
    passages = searcher.search("font cache report", OPTIONS).passages
    assert [p.chunk.document_id for p in passages] == ["git:high", "git:low"]
    assert passages[0].quant == pytest.approx(0.9)
    assert passages[0].rerank is None
    searcher.close()
    index.close()


def test_the_cross_encoder_sees_no_more_than_was_asked(folder: Path) -> None:
    index, reranker = Index.open(folder), OverlapReranker()
    searcher = Searcher(index, HashEmbedder(), reranker, SearchWeights())
    searcher.search("font cache restart", OPTIONS)
    assert reranker.asked == [4]
    searcher.search("font cache restart", OPTIONS.model_copy(update={"rerank": 0}))
    assert reranker.asked == [4]
    searcher.close()
    index.close()


def test_a_reopened_index_answers_equally_from_many_threads(searcher: Searcher, folder: Path) -> None:
    queries = ["font cache", "TIKA-4833", "网关离线", "restart"] * 5
    index = Index.open(folder)
    again = Searcher(index, HashEmbedder(), OverlapReranker(), SearchWeights())

    def ask(query: str) -> tuple[object, float]:
        result = again.search(query, OPTIONS)
        return result.passages, result.relevance

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, queries))
    for query, answer in zip(queries, answers, strict=True):
        result = searcher.search(query, OPTIONS)
        assert answer == (result.passages, result.relevance)
    again.close()
    index.close()


def test_another_embedder_than_the_index_was_built_with_is_refused(folder: Path) -> None:
    other = HashEmbedder()
    other.model_id = "test/other"
    with pytest.raises(ContractBroken, match="test/hash"):
        Searcher(Index.open(folder), other, None, SearchWeights())


def test_the_text_of_passages_that_are_not_shown_is_never_read(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = Index.chunks

    def counting(self: Index, numbers: list[int]) -> list[Chunk]:
        read.extend(numbers)
        return original(self, numbers)

    monkeypatch.setattr(Index, "chunks", counting)
    searcher.search("font cache", SearchOptions(candidates=9, rerank=0, top_k=1))
    assert len(np.unique(read)) <= 2
