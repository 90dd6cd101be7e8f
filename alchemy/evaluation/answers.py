"""Answers from end to end, as the release gives them without a language model: search, abstain, quote.

A citation is right when its span overlaps the evidence of the question's pair. The same said elsewhere counts
as wrong, so precision is a floor. A sentence is grounded when it stands in a citation that the index holds
word for word; it is looked up there, not taken from who wrote the answer.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from alchemy.evaluation.candidate import UNANSWERABLE, Judging, asked
from alchemy.evaluation.tables import markdown_table, share, spread
from alchemy.quoting import Citation, Draft, extract, outside_quotes
from alchemy.records import SftPair
from alchemy.retrieval.evaluate import interval
from alchemy.retrieval.index import Index
from alchemy.text.sentences import split_sentences


def judge_answers(judging: Judging) -> dict[str, Any]:
    """Answers every held-out question from what the search has found for it."""
    index, precision, recall, grounded = judging.searcher.index, [], [], []
    answered: dict[bool, list[bool]] = {True: [], False: []}  # by whether the question has an answer
    leaks = 0
    for pair in asked(judging.held):
        draft = _answer(judging, pair.instruction)
        answerable = pair.kind != UNANSWERABLE
        answered[answerable].append(bool(draft.text))
        leaks += judging.count_leaks(draft.text)
        if draft.text:
            grounded.append(groundedness(draft, index))
        if answerable:
            right = _right(draft.citations, pair, index)
            recall.append(float(any(right)))
            precision += [sum(right) / len(right)] if right else []
    return {
        "answers": {
            "answered": _share(answered[True]),
            "declined": _share([not one for one in answered[False]]),
            "citation_precision": asdict(interval(precision)) if precision else None,
            "citation_recall": asdict(interval(recall)) if recall else None,
            "groundedness": asdict(interval(grounded)) if grounded else None,
            "leaks": leaks,
        }
    }


def groundedness(draft: Draft, index: Index) -> float:
    """Share of an answer's sentences that stand word for word in what it cites."""
    quotes = [(_sentences(one.quote), _is_exact(one, index)) for one in draft.citations]
    good = sum(count for count, exact in quotes if exact)
    return good / (sum(count for count, _ in quotes) + _sentences(outside_quotes(draft.text)))


def render_answers(report: Mapping[str, Any]) -> list[str]:
    answers = report["answers"]
    rows = [
        ["answered, of the answerable", share(answers["answered"])],
        ["declined, of the unanswerable", share(answers["declined"])],
        ["citation precision", spread(answers["citation_precision"])],
        ["citation recall", spread(answers["citation_recall"])],
        ["groundedness", spread(answers["groundedness"])],
        ["secrets or personal data in answers", str(answers["leaks"])],
    ]
    return [
        "## Answers without a language model",
        "",
        *markdown_table(["measure", "value (95 % interval)"], rows),
    ]


def _answer(judging: Judging, question: str) -> Draft:
    result = judging.searcher.found[question]
    # The best few of a wide search are those of a narrow one.
    passages = result.passages[: judging.options.top_k] if result.answerable else ()
    return extract(question, passages)


def _right(citations: tuple[Citation, ...], pair: SftPair, index: Index) -> list[bool]:
    chunk = index.chunk(pair.chunk_id)
    if chunk is None:  # the evidence is not in this index
        return [False] * len(citations)
    start = chunk.start + max(chunk.text.find(pair.evidence_quote), 0)
    end = start + len(pair.evidence_quote)
    return [one.document_id == pair.document_id and one.start < end and start < one.end for one in citations]


def _is_exact(citation: Citation, index: Index) -> bool:
    chunk = index.chunk(citation.chunk_id)
    if chunk is None:
        return False
    return chunk.text[citation.start - chunk.start : citation.end - chunk.start] == citation.quote


def _sentences(text: str) -> int:
    return sum(bool(text[start:end].strip()) for start, end in split_sentences(text))


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None
