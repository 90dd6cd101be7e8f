import json
from pathlib import Path

from alchemy.quant.labels import Label, read_labels
from alchemy.records import Document, RawObject, write_lines
from alchemy.settings import CleanOptions
from alchemy.sources.feedback import read
from alchemy.text.document import to_document
from alchemy.text.sanitize import Sanitizer
from tests.quant.test_measure import document

SHA = "git:2b70202aaec3db48fd5ff4d996d974444a750a11"


def cleaned(folder: Path, *records: dict) -> list[Document]:
    """Feedback records as the line makes documents of them."""
    path = folder / "feedback.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    raw = RawObject("feedback", "raw/feedback/feedback.jsonl", path.stat().st_size, "")
    drafts = read(raw, path, CleanOptions())
    return [to_document(draft, raw, Sanitizer(b"salt"), CleanOptions()) for draft in drafts]


def said(number: int, rating: object, citations: object) -> dict:
    question = "How long may a reading be outside the range?"
    return {"id": f"fb-{number}", "question": question, "rating": rating, "citations": citations}


def test_every_cited_document_takes_over_the_rating_of_the_answer(tmp_path: Path) -> None:
    documents = cleaned(
        tmp_path,
        said(1, "up", ["confluence:glossary_65552", SHA]),
        said(2, -1, [{"document_id": "documents:a, b.pdf", "quote": "20 minutes"}]),
    )
    write_lines(tmp_path / "part-00000.jsonl", [document(1, {"rating": 5}), *documents])
    assert read_labels([tmp_path / "part-00000.jsonl"]) == [
        Label("confluence:glossary_65552", True),
        Label(SHA, True),
        Label("documents:a, b.pdf", False),
    ]


def test_feedback_without_a_rating_or_citations_labels_nothing(tmp_path: Path) -> None:
    ratings = (None, 0, "so so")
    documents = cleaned(
        tmp_path,
        *(said(number, rating, ["jira:1"]) for number, rating in enumerate(ratings)),
        said(8, 1, None),
        said(9, 1, []),
    )
    assert len(documents) == 5
    write_lines(tmp_path / "part-00000.jsonl", documents)
    assert read_labels([tmp_path / "part-00000.jsonl"]) == []


def test_a_document_that_quotes_feedback_is_none(tmp_path: Path) -> None:
    quoting = document(1, {"rating": 1}, source="git", kind="commit")
    quoting.fields["citations"] = '["jira:2"]'
    quoting.fields["sample"] = '"kind":"feedback"'
    write_lines(tmp_path / "part-00000.jsonl", [quoting])
    assert read_labels([tmp_path / "part-00000.jsonl"]) == []
