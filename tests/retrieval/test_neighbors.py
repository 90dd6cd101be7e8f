"""Chunks that stand side by side become one passage whose text is the document's own."""

from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.records import Block, Chunk, Document
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.lexical import tokenize
from alchemy.retrieval.neighbors import follows, joined_text, touch
from alchemy.retrieval.search import Searcher
from alchemy.settings import ChunkOptions, SearchOptions
from alchemy.text.chunking import chunk_document
from tests.retrieval.conftest import HashEmbedder, OverlapReranker

OPTIONS = ChunkOptions(target_tokens=32, overlap_tokens=8)


def document(sections: dict[str, str], key: str = "1") -> Document:
    """A page: each section its heading, a blank line, and its text."""
    text, blocks = "", []
    for heading, body in sections.items():
        for kind, part in (("heading", heading), ("prose", body)):
            blocks.append(Block(len(text), len(text) + len(part), kind, heading))
            text += f"{part}\n\n"
    return Document(
        id=f"confluence:{key}",
        version="1",
        source="confluence",
        kind="page",
        key=key,
        title="",
        project="",
        text=text,
        blocks=tuple(blocks),
        fields={},
        metrics={},
        url="",
        updated="2024-03-01",
        raw_key="raw",
        raw_sha256="0",
        locator="",
    )


def cut(made: Document) -> list[Chunk]:
    return chunk_document(made, lambda texts: [len(text.split()) for text in texts], OPTIONS)


def sentences(topic: str, count: int) -> str:
    return " ".join(f"The {topic} number {n} is kept in box {topic}{n}." for n in range(count))


@given(
    st.lists(
        st.lists(st.integers(1, 40), min_size=1, max_size=6).map(
            lambda sizes: " ".join(" ".join(["word"] * size) + "." for size in sizes)
        ),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
def test_joined_neighbors_are_the_documents_own_text(bodies: list[str], data: st.DataObject) -> None:
    made = document({f"Section {n}": body for n, body in enumerate(bodies)})
    chunks = cut(made)
    assert all(follows(chunk, before) for before, chunk in pairwise(chunks))
    first = data.draw(st.integers(0, len(chunks) - 1))
    some = chunks[first : data.draw(st.integers(first + 1, len(chunks)))]
    assert joined_text(some) == made.text[some[0].start : some[-1].end]


def test_only_the_chunk_before_and_the_chunk_after_touch() -> None:
    chunks = cut(document({"Fonts": sentences("font", 20)}))
    other = cut(document({"Fonts": sentences("font", 20)}, key="2"))
    assert len(chunks) > 3
    assert touch(chunks[1], [chunks[0]])
    assert touch(chunks[1], [chunks[3], chunks[2]])
    assert not touch(chunks[0], [chunks[0], chunks[2], *other])


@pytest.fixture
def pages(tmp_path: Path):
    """Two pages and their search, which finds four passages at most."""
    page = document({"Fonts": sentences("font", 9), "Screws": sentences("screw", 9)})
    other = document({"Lamps": "A lamp is no font but it is kept in a box."}, key="2")
    chunks = [*cut(page), *cut(other)]
    build_index(tmp_path, chunks, {}, HashEmbedder())
    with (
        closing(Index.open(tmp_path)) as index,
        closing(Searcher(index, HashEmbedder(), OverlapReranker(), SearchWeights())) as searcher,
    ):
        yield page, other, searcher


def test_neighbors_become_one_passage_and_the_place_goes_to_the_next(
    pages: tuple[Document, Document, Searcher],
) -> None:
    page, other, searcher = pages
    passages = searcher.search("In which box is the font kept?", SearchOptions(top_k=2)).passages
    merged, last = passages
    assert (merged.chunk.document_id, last.chunk.document_id) == (page.id, other.id)
    assert len(merged.chunks) > 1
    assert merged.text == page.text[merged.start : merged.start + len(merged.text)]
    assert merged.text == joined_text(merged.chunks)
    assert merged.score >= last.score
    assert last.text == last.chunk.text


def test_a_position_in_a_passage_belongs_to_the_chunk_that_holds_it(
    pages: tuple[Document, Document, Searcher],
) -> None:
    page, _, searcher = pages
    passage = searcher.search("In which box is the font kept?", SearchOptions(top_k=1)).passages[0]
    for position in range(passage.start, passage.start + len(passage.text)):
        if not page.text[position].isspace():
            chunk = passage.chunk_at(position)
            assert chunk.start <= position < chunk.end


def test_a_chunk_between_two_passages_makes_them_one(tmp_path: Path) -> None:
    chunks = cut(document({"Fonts": sentences("font", 12)}))[:3]
    build_index(tmp_path, chunks, {}, HashEmbedder())
    only_last = set(tokenize(chunks[2].text)) - set(tokenize(chunks[1].text))
    query = f"font0 {min(only_last)}"
    with (
        closing(Index.open(tmp_path)) as index,
        closing(Searcher(index, HashEmbedder(), None, SearchWeights(lexical=1.0))) as searcher,
    ):
        assert {*index.lexical.scores(query, 3)[0][:2]} == {0, 2}
        (passage,) = searcher.search(query, SearchOptions(top_k=3)).passages
    assert passage.chunks == chunks
