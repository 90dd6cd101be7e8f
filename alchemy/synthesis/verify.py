"""Proves published pairs again: from what is published beside them, by nothing that their run remembers."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from alchemy.records import Chunk, Document, Insight, SftPair
from alchemy.synthesis.grounding import Candidate, check


@dataclass(frozen=True, slots=True)
class Verification:
    """How many pairs were looked at, and the ids of those that are not proven, by reason."""

    pairs: int
    wrong: dict[str, list[str]]


def verify_pairs(
    pairs: Iterable[SftPair],
    chunks: Iterable[Chunk],
    documents: Iterable[Document],
    insights: Iterable[Insight],
) -> Verification:
    """Whether every pair quotes its chunk word for word and its numbers and identifiers stand in its source.

    Pairs are held, the rest is streamed. Beside those of `grounding.check` there are two reasons: a pair's
    chunk does not exist (`chunk_is_gone`) or is of another document than the pair says (`another_document`).
    """
    by_chunk: defaultdict[str, list[SftPair]] = defaultdict(list)
    for pair in pairs:
        by_chunk[pair.chunk_id].append(pair)
    total = sum(map(len, by_chunk.values()))
    about = {pair.document_id for those in by_chunk.values() for pair in those}
    fields = {one.id: one.fields for one in documents if one.id in about}
    facts = {one.document_id: one for one in insights if one.document_id in about}
    wrong: defaultdict[str, list[str]] = defaultdict(list)
    for chunk in chunks:
        for pair in by_chunk.pop(chunk.id, ()):
            reason = _fault(pair, chunk, facts.get(chunk.document_id), fields)
            if reason:
                wrong[reason].append(pair.id)
    wrong["chunk_is_gone"] += [pair.id for those in by_chunk.values() for pair in those]
    return Verification(total, {reason: ids for reason, ids in wrong.items() if ids})


def _fault(
    pair: SftPair, chunk: Chunk, insight: Insight | None, fields: dict[str, dict[str, str]]
) -> str | None:
    if pair.document_id != chunk.document_id:
        return "another_document"
    candidate = Candidate(
        instruction=pair.instruction,
        response=pair.response,
        evidence_quote=pair.evidence_quote,
        chunk_id=pair.chunk_id,
        document_id=pair.document_id,
        kind=pair.kind,
        provider=pair.provider,
    )
    return check(candidate, chunk, insight, fields.get(pair.document_id))
