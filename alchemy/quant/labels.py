"""Labels: which documents helped, by what people said of the answers that cited them.

A rating is of an answer; every document that the answer cites takes it over. What a feedback record looks
like is said in `alchemy.sources.feedback`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from alchemy.records import Document, from_line

_FEEDBACK = b'"kind":"feedback"'  # as `to_line` writes it: of a large corpus few lines need parsing


@dataclass(frozen=True, slots=True)
class Label:
    """One person's judgment of one cited document."""

    document_id: str
    helped: bool


def read_labels(corpus: Iterable[Path]) -> list[Label]:
    """Labels of all feedback documents, in order; one that has no rating, or rates with 0, gives none."""
    return [label for document in _feedback(corpus) for label in labels_of(document)]


def labels_of(feedback: Document) -> Iterator[Label]:
    """A label for each document that the rated answer cites."""
    rating = feedback.metrics.get("rating", 0.0)
    if rating:
        for document_id in orjson.loads(feedback.fields.get("citations", "[]")):
            yield Label(document_id, rating > 0)


def _feedback(corpus: Iterable[Path]) -> Iterator[Document]:
    for path in corpus:
        with path.open("rb") as lines:
            for line in lines:
                if _FEEDBACK in line and (document := from_line(Document, line)).kind == "feedback":
                    yield document
