import json

from tests.sources.conftest import Read

RECORD = {
    "id": "fb-0002",
    "question": "How many restarts are allowed?",
    "answer": "There is no limit.",
    "rating": -1,
    "correction": "At most three a day.",
    "user": "praman",
    "created_at": "2026-10-02T11:40:00+00:00",
}


def test_feedback_becomes_a_draft(read: Read) -> None:
    draft = read("feedback", "f.jsonl", json.dumps(RECORD) + "\n").draft
    assert (draft.kind, draft.key, draft.title) == ("feedback", "fb-0002", RECORD["question"])
    assert [part.text for part in draft.parts] == [
        "# Question",
        "How many restarts are allowed?",
        "# Answer",
        "There is no limit.",
        "# Correction",
        "At most three a day.",
    ]
    assert (draft.fields["rating"], draft.metrics["rating"]) == ("-1", -1)
    assert (draft.people, draft.updated) == (("praman",), RECORD["created_at"])


def test_thumbs_are_numbers_too(read: Read) -> None:
    data = "".join(json.dumps({**RECORD, "rating": rating}) + "\n" for rating in ("up", "down", None, 4))
    drafts = read("feedback", "f.jsonl", data).drafts
    assert [draft.metrics.get("rating") for draft in drafts] == [1, -1, None, 4]


def test_the_cited_documents_are_kept_each_once(read: Read) -> None:
    cited = ["confluence:a, b", {"document_id": "git:1", "quote": "q"}, "git:1", {"number": 2}]
    data = "".join(json.dumps({**RECORD, "citations": citations}) + "\n" for citations in (cited, [], "x"))
    drafts = read("feedback", "f.jsonl", data).drafts
    assert [draft.fields.get("citations") for draft in drafts] == ['["confluence:a, b","git:1"]', None, None]


def test_feedback_without_a_question_is_quarantined(read: Read) -> None:
    assert read("feedback", "f.jsonl", '{"id": "a"}\n{"question": "q"}\n').reasons == ["missing_field"] * 2
