"""Which statements of a written answer no cited passage supports, so that a reader sees where to doubt.

A sentence is supported when it cites, and what it cites holds every number and identifier of it and at least
half of its words. That is a test of what can be checked by words: a sentence that turns a passage's meaning
around with the passage's own words passes. Not for quotes by `quoting.extract`, which are exact.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alchemy.quoting import MARKS, mark_numbers
from alchemy.retrieval.search import Passage
from alchemy.text.sentences import split_sentences
from alchemy.text.terms import terms

SHARED = 0.5  # of a sentence's words that must stand in what it cites
_FEWEST = 3  # words of a statement; what is shorter ("Yes.") says nothing by itself
_MARKS_AFTER = re.compile(rf"\s*{MARKS.pattern}")
_NOT_A_CLAIM = re.compile(r"[:：?？]\s*\Z")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Characters `start` to `end` of an answer's text."""

    start: int
    end: int


def unsupported(text: str, passages: Sequence[Passage]) -> tuple[TextSpan, ...]:
    """The sentences of the answer that cite nothing, or nothing that supports them, in their order."""
    held = [terms(f"{p.chunk.title} {p.chunk.section} {p.text}") for p in passages]
    doubtful = []
    for span, cited in _statements(text):
        said = terms(MARKS.sub(" ", text[span.start : span.end]))
        if len(said) < _FEWEST:
            continue
        known = set().union(*(held[number - 1] for number in cited if 1 <= number <= len(held)))
        exact = {term for term in said if _DIGIT.search(term)}
        if not exact <= known or len(said & known) < SHARED * len(said):
            doubtful.append(span)
    return tuple(doubtful)


def _statements(text: str) -> Iterator[tuple[TextSpan, list[int]]]:
    """Each sentence that claims something, with the passages that it cites; marks after its end are its."""
    for start, end in split_sentences(text):
        own = MARKS.match(text, start)  # the marks of the sentence before, where they follow its full stop
        start = own.end() if own else start  # noqa: PLW2901
        after = _MARKS_AFTER.match(text, end)
        whole = text[start : after.end() if after else end]
        if whole.strip() and not _NOT_A_CLAIM.search(text[start:end]):
            marks = [number for found in MARKS.finditer(whole) for number in mark_numbers(found.group())]
            yield TextSpan(start + len(whole) - len(whole.lstrip()), end), marks
