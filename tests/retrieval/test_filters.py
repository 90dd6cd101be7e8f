"""Filters limit what is looked at, not what is shown: nothing outside, and never short of what exists."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alchemy.records import Chunk
from alchemy.retrieval.dense import Dense
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import VECTORS, Filters, Index, build_index
from alchemy.retrieval.search import Searcher, SearchResult
from alchemy.settings import SearchOptions
from tests.retrieval.conftest import HashEmbedder, make_chunk

SOURCES, PROJECTS, KINDS = ("git", "jira"), ("TIKA", "brinewell/haulmark", ""), ("commit", "issue", "page")
DATES = ("", "2023-12-31", "2024-02-29T23:59:59+02:00", "2024-03-01T00:00:00Z", "2026-07-14T10:00:00")
SCOPES = ("git/TIKA", "git/brinewell/haulmark", "git/", "git/*", "jira/TIKA", "jira/*", "documents/*")

facets = st.tuples(
    st.sampled_from(SOURCES), st.sampled_from(PROJECTS), st.sampled_from(KINDS), st.sampled_from(DATES)
)
days = st.sampled_from(["", "2023-12-31", "2024-02-29", "2024-03-01", "2030-01-01"])


def some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from((*values, "unknown")), max_size=2, unique=True).map(tuple)


every_filter = st.builds(
    Filters,
    sources=some(SOURCES),
    projects=some(PROJECTS),
    kinds=some(KINDS),
    since=days,
    until=days,
    access=st.none() | st.frozensets(st.sampled_from(SCOPES), max_size=3),
)


def matches(chunk: Chunk, filters: Filters) -> bool:
    """The filter's meaning, said again in the plainest way."""
    day = chunk.updated[:10]
    dated = not (filters.since or filters.until) or (
        day != "" and filters.since <= day and (not filters.until or day < filters.until)
    )
    scopes = {f"{chunk.source}/{chunk.project}", f"{chunk.source}/*"}
    return (
        chunk.source in (filters.sources or [chunk.source])
        and chunk.project in (filters.projects or [chunk.project])
        and chunk.kind in (filters.kinds or [chunk.kind])
        and dated
        and (filters.access is None or bool(scopes & filters.access))
    )


def documents(rows: list[tuple[str, str, str, str]]) -> list[Chunk]:
    """Nothing of what is filtered by stands in the text: what matches lies anywhere among the vectors."""
    return [
        make_chunk(
            f"d:{n}",
            f"font cache w{n}x w{n}y w{n}z",
            source=source,
            project=project,
            kind=kind,
            updated=day,
            header="",
        )
        for n, (source, project, kind, day) in enumerate(rows)
    ]


@contextmanager
def searching(chunks: list[Chunk], *, lists: bool) -> Iterator[Searcher]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_index(folder, chunks, {}, HashEmbedder())
        if lists:
            vectors = HashEmbedder().embed_passages([chunk.embed_text for chunk in chunks])
            assert Dense.build(folder / VECTORS, vectors, flat_limit=1).kind == "ivf"
        with (
            closing(Index.open(folder)) as index,
            closing(Searcher(index, HashEmbedder(), None, SearchWeights())) as searcher,
        ):
            yield searcher


@pytest.mark.parametrize("lists", [False, True], ids=["flat", "ivf"])
@settings(suppress_health_check=[HealthCheck.differing_executors], max_examples=30, deadline=None)
@given(rows=st.lists(facets, min_size=1, max_size=20), filters=every_filter, top_k=st.integers(1, 20))
def test_a_filtered_search_shows_nothing_outside_and_is_never_short_of_what_exists(
    lists: bool, rows: list[tuple[str, str, str, str]], filters: Filters, top_k: int
) -> None:
    chunks = documents(rows * (160 // len(rows)) if lists else rows)  # enough for several lists
    matching = {chunk.document_id for chunk in chunks if matches(chunk, filters)}
    options = SearchOptions(candidates=top_k, rerank=0, top_k=top_k)
    with searching(chunks, lists=lists) as searcher:
        for query in ("font cache", "w0x", "something else"):  # in every passage, in one, in none
            passages = searcher.search(query, options, filters).passages
            assert {passage.chunk.document_id for passage in passages} <= matching
            assert len(passages) == min(top_k, len(matching))


def test_an_access_set_lets_through_what_it_names_and_an_empty_one_nothing(tmp_path: Path) -> None:
    rows = [("git", "TIKA", "commit", ""), ("git", "brinewell/haulmark", "commit", ""), ("jira", "", "x", "")]
    build_index(tmp_path, documents(rows), {}, HashEmbedder())

    def allowed(*scopes: str) -> list[int]:
        numbers = index.allowed(Filters(access=frozenset(scopes)))
        assert numbers is not None
        return numbers.tolist()

    with closing(Index.open(tmp_path)) as index:
        assert allowed() == []
        assert allowed("git/brinewell/haulmark") == [1]
        assert allowed("git/*") == [0, 1]
        assert allowed("jira/", "git/TIKA") == [0, 2]
        assert index.allowed(Filters()) is None


@given(every_filter, every_filter)
def test_completing_filters_never_overrides_what_was_given(given: Filters, other: Filters) -> None:
    both = given.completed(other)
    for name in ("sources", "projects", "kinds", "since", "until", "access"):
        mine, theirs = getattr(given, name), getattr(other, name)
        assert getattr(both, name) == (theirs if mine == getattr(Filters(), name) else mine)


@pytest.fixture(scope="module")
def history() -> Iterator[Searcher]:
    """Two commits and an issue about the same thing."""
    rows = {
        "git:old": ("git", "commit", "2024-01-05", "The font cache of the broker is kept in memory"),
        "git:new": ("git", "commit", "2024-06-05", "The font cache of the broker is kept on disk"),
        "jira:F-1": (
            "jira",
            "issue",
            "2024-07-01",
            "Since the commits of July the font cache of the broker leaks",
        ),
    }
    chunks = [
        make_chunk(key, text, 0, source, "P", kind=kind, updated=updated)
        for key, (source, kind, updated, text) in rows.items()
    ]
    with searching(chunks, lists=False) as searcher:
        yield searcher


WIDE = SearchOptions(candidates=9, rerank=0, top_k=9)


def found(searcher: Searcher, query: str, filters: Filters = Filters(), **options: bool) -> SearchResult:
    return searcher.search(query, WIDE.model_copy(update=options), filters, date(2024, 11, 21))


def documents_of(result: SearchResult) -> set[str]:
    return {passage.chunk.document_id for passage in result.passages}


def test_what_a_question_asks_for_limits_the_search_and_is_told(history: Searcher) -> None:
    result = found(history, "Which commits since March are about the font cache of the broker?")
    assert result.answerable
    assert documents_of(result) == {"git:new"}
    assert result.filters == Filters(kinds=("commit",), since="2024-03-01")
    assert not result.dropped


def test_an_inferred_filter_without_an_answer_is_given_up_and_that_is_told(history: Searcher) -> None:
    question = "Which commits since July are about the font cache of the broker?"
    result = found(history, question)
    plain = found(history, question, infer_filters=False)
    assert (result.passages, result.answerable) == (plain.passages, plain.answerable)
    assert len(documents_of(result)) == 3
    assert result.answerable
    assert not result.filters
    assert result.dropped == Filters(kinds=("commit",), since="2024-07-01")


def test_a_filter_of_the_caller_is_never_given_up(history: Searcher) -> None:
    mine = Filters(sources=("jira",))
    result = found(history, "Which commits since March are about the font cache of the broker?", mine)
    assert documents_of(result) == {"jira:F-1"}
    assert result.filters == mine
    assert result.dropped
    nothing = found(history, "Which commits are about the font cache?", Filters(access=frozenset()))
    assert not nothing.passages
    assert not nothing.answerable
