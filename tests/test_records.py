"""Records survive their JSON lines, and equal records are equal bytes."""

from hypothesis import given
from hypothesis import strategies as st

from alchemy.records import (
    SOURCES,
    Block,
    Chunk,
    Document,
    Insight,
    Metric,
    RawObject,
    Rejected,
    SftPair,
    arrow_schema,
    fingerprint,
    from_line,
    to_line,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.floats(allow_nan=False, allow_infinity=False)
positions = st.integers(0, 2**53)
documents = st.builds(
    Document,
    **dict.fromkeys(
        ["id", "version", "source", "kind", "key", "title", "project", "text", "url", "updated"], text
    ),
    **dict.fromkeys(["raw_key", "raw_sha256", "locator"], text),
    blocks=st.lists(st.builds(Block, positions, positions, st.just("prose"), text)).map(tuple),
    fields=st.dictionaries(text, text),
    metrics=st.dictionaries(text, numbers),
)


@given(documents)
def test_a_document_survives_its_line(document: Document) -> None:
    assert from_line(Document, to_line(document)) == document


def test_a_line_does_not_depend_on_the_order_of_keys() -> None:
    one = Metric("d", "git", "commit", {"a": 1.0, "b": 2.0})
    other = Metric("d", "git", "commit", {"b": 2.0, "a": 1.0})
    assert to_line(one) == to_line(other)
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint("a", "b") != fingerprint("ab")


def test_every_record_has_an_arrow_schema_of_its_fields() -> None:
    for record in (RawObject, Document, Chunk, Metric, Insight, SftPair, Rejected):
        assert arrow_schema(record).names == list(record.__dataclass_fields__)
    assert str(arrow_schema(Document).field("blocks").type.value_type.field("start").type) == "int64"


def test_the_sources_are_those_of_the_contract() -> None:
    assert SOURCES == ("git", "jira", "confluence", "documents", "database", "feedback")
