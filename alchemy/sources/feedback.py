"""What people said about answers, as the answering service records it: JSON lines.

    {"id": "fb-0002", "question": "...", "answer": "...", "rating": -1, "correction": "At most three a day.",
     "citations": ["confluence:runbook_65547"], "user": "praman", "created_at": "2026-10-02T11:40:00+00:00"}

`id` and `question` must be there. `rating` is 1 or "up" where the answer helped, -1 or "down" where it did
not. `citations` are ids of the documents that the answer cites, or the citations of the answer itself
(objects with a `document_id`); the document keeps the ids as a JSON list, each once, because an id may hold
any character. `tenant` is whose it is: the document's project. What is learned from the ratings is said in
`alchemy.quant.labels`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from alchemy.records import Draft, Part, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.drafts import as_number, draft, iso, names, optional_text, people, required
from alchemy.sources.json_records import Found, read_records
from alchemy.text.html import heading_part

_WORDS = {"up": 1.0, "good": 1.0, "positive": 1.0, "down": -1.0, "bad": -1.0, "negative": -1.0}
_SECTIONS = (("question", "Question"), ("answer", "Answer"), ("correction", "Correction"))


def read(raw: RawObject, path: Path, options: CleanOptions) -> Iterator[Draft | Rejected]:
    yield from read_records(raw, path, _build, ("feedback", "items"), options.max_document_bytes)


def _build(found: Found) -> Draft:
    record = found.value
    key, question = required(record, "id"), required(record, "question")
    parts = []
    for name, label in _SECTIONS:
        text = optional_text(record, name)
        if text.strip():
            parts += [heading_part(label, 1), Part(text)]
    rating = record.get("rating")
    when = record.get("updated_at") or record.get("created_at") or record.get("at")
    return draft(
        "feedback",
        key,
        question,
        parts,
        found.locator,
        project=optional_text(record, "tenant"),
        fields={
            "rating": rating,
            "answer_id": record.get("answer_id"),
            "release": record.get("release"),
            "citations": _cited(record.get("citations")),
        },
        metrics={"rating": _rate(rating)},
        people=people(*(record.get(name) for name in ("user", "author", "login", "email"))),
        updated=iso(when),
    )


def _cited(citations: Any) -> str | None:
    ids = list(dict.fromkeys(names(citations, "document_id")))
    return orjson.dumps(ids).decode() if ids else None


def _rate(rating: Any) -> float | None:
    """A number as it is; thumbs up is 1, thumbs down is -1."""
    return _WORDS.get(rating.strip().lower()) if isinstance(rating, str) else as_number(rating)
