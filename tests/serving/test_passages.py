"""The passage around a citation, and who may see it."""

from dataclasses import replace
from typing import Any

from alchemy.records import Chunk
from serving.routes.passages import readable
from tests.serving.conftest import Knowledge, Serve, Service, Valkey, make_chunk, make_passage

BEFORE = "Gateways speak to the hub every minute."
CITED = "The gateway retries three times. It then raises GW-503 to the caller."
AFTER = "to the caller. An operator restarts it."


def document(*, version: str = "v1") -> list[Chunk]:
    """Three neighbors: a gap of two characters, then an overlap of fourteen."""
    rows: list[dict[str, Any]] = [
        {"text": BEFORE, "start": 0, "chunk_index": 0},
        {"text": CITED, "start": 41, "chunk_index": 1, "gap": "\n\n"},
        {"text": AFTER, "start": 41 + len(CITED) - 14, "chunk_index": 2},
    ]
    return [make_chunk(**row, total_chunks=3, document_version=version) for row in rows]


WHOLE = f"{BEFORE}\n\n{CITED} An operator restarts it."


def prepared(knowledge: Knowledge, chunks: list[Chunk]) -> None:
    cited = next(chunk for chunk in chunks if chunk.text == CITED)
    knowledge.behavior.passages = [replace(make_passage(CITED), chunk=cited)]
    knowledge.behavior.documents[cited.document_id] = chunks
    knowledge.champion()


def passage(service: Service, number: int = 1) -> dict[str, Any]:
    answer = service.ask()
    response = service.http.get(f"/v1/answers/{answer['id']}/citations/{number}")
    row: dict[str, Any] = response.raise_for_status().json()
    return row


def test_a_citation_opens_in_the_exact_text_around_it(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    prepared(knowledge, document())
    with serve(redis_url=valkey.url) as service:
        row = passage(service)
    assert row["text"] == WHOLE
    assert row["text"][row["start"] : row["end"]] == CITED
    assert (row["before"], row["after"], row["notice"]) == (False, False, None)
    assert row["document"]["id"] == "jira:HAUL-1"
    assert row["lineage"]["raw_key"] == "raw/jira/jira:HAUL-1.json"
    assert row["lineage"]["raw_sha256"] == "ab" * 32
    assert row["lineage"]["span"] == {"start": 41, "end": 41 + len(CITED)}
    assert row["lineage"]["raw_present"] is False


def test_a_gap_in_the_document_ends_the_surroundings_and_is_told(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    _, cited, after = document()
    far = make_chunk("Long after.", start=900, chunk_index=7, total_chunks=8)
    prepared(knowledge, [cited, after, far])
    with serve(redis_url=valkey.url) as service:
        row = passage(service)
    assert row["text"] == f"{CITED} An operator restarts it."
    assert row["after"] is True


def test_a_document_that_changed_since_leaves_the_quote_alone(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    prepared(knowledge, document())
    with serve(redis_url=valkey.url) as service:
        answer = service.ask()
        url = f"/v1/answers/{answer['id']}/citations/1"
        knowledge.behavior.documents["jira:HAUL-1"] = document(version="v2")
        changed = service.http.get(url).json()
        knowledge.behavior.documents["jira:HAUL-1"] = []
        gone = service.http.get(url).json()
    assert changed["text"] == gone["text"] == CITED
    assert "another version" in changed["notice"]
    assert "not in the release" in gone["notice"]
    assert gone["document"]["project"] is None


def test_a_citation_that_is_not_there_is_not_found(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    prepared(knowledge, document())
    with serve(redis_url=valkey.url) as service:
        answer = service.ask()
        for path in (f"{answer['id']}/citations/2", "ans-0/citations/1"):
            assert service.http.get(f"/v1/answers/{path}").status_code == 404
        assert service.http.get(f"/v1/answers/{answer['id']}/citations/0").status_code == 422


def test_an_access_set_is_asked_as_it_is_today() -> None:
    assert readable(None, "jira", None)
    assert readable(frozenset({"jira/HAUL"}), "jira", "HAUL")
    assert readable(frozenset({"jira/*"}), "jira", None)
    assert not readable(frozenset({"jira/HAUL"}), "jira", "PAY")
    assert not readable(frozenset({"jira/HAUL"}), "jira", None)  # it may have been of any project
    assert not readable(frozenset(), "jira", "HAUL")
