"""What stands around a citation: `GET /v1/answers/{id}/citations/{number}`.

The text comes from the release that serves now, and only where it still holds the very version that was
cited: there every span is exact. Otherwise the quote stands alone and the answer says so. The asker must
be allowed to read the answer, and the document as the access set is today.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from alchemy.errors import NotFound
from alchemy.quoting import Citation
from alchemy.records import Chunk
from alchemy.retrieval.neighbors import follows, joined_text
from serving.people.access import Asker
from serving.services import Services, services

router = APIRouter(prefix="/v1", tags=["lineage"])

_AROUND = 1500  # characters of the document that are shown before and after the quotes, at most


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class CitedDocument(_Wire):
    id: str
    version: str
    title: str
    url: str
    source: str
    project: str | None  # None where the document is no longer in the release


class Span(_Wire):
    start: int
    end: int


class PassageLineage(_Wire):
    """Where the quote comes from; `span` counts characters of the cleaned document."""

    raw_key: str
    raw_sha256: str
    locator: str
    raw_present: bool
    chunk_id: str
    span: Span


class CitedPassage(_Wire):
    """A citation in its surroundings. `quotes` are spans of `text`: two sentences may share a number."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "number": 1,
                    "document": {
                        "id": "jira:HAUL-1",
                        "version": "9f2c",
                        "title": "Gateway retries",
                        "url": "https://jira.example/browse/HAUL-1",
                        "source": "jira",
                        "project": "HAUL",
                    },
                    "text": "The gateway retries three times. It then raises GW-503.",
                    "quotes": [{"start": 0, "end": 32}],
                    "start": 0,
                    "end": 32,
                    "before": False,
                    "after": True,
                    "notice": None,
                    "lineage": {
                        "raw_key": "raw/jira/export.json",
                        "raw_sha256": "ab" * 32,
                        "locator": "issues[0]",
                        "raw_present": True,
                        "chunk_id": "c-17",
                        "span": {"start": 100, "end": 132},
                    },
                }
            ]
        },
    )

    number: int
    document: CitedDocument
    text: str
    quotes: list[Span]
    start: int  # of the first quote, in `text`
    end: int
    before: bool  # whether the document goes on before the text
    after: bool
    notice: str | None  # why there is nothing but the quote
    lineage: PassageLineage


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A piece of a document; `start` is its place in there."""

    text: str
    start: int
    before: bool
    after: bool


@router.get("/answers/{answer_id}/citations/{number}", response_model=CitedPassage)
async def cited_passage(
    answer_id: str,
    number: Annotated[int, Path(ge=1, le=999)],
    asker: Asker,
    found: Annotated[Services, Depends(services)],
) -> CitedPassage:
    """The passage around a citation, for who asked the question."""
    answer = (await found.stored(answer_id, asker)).answer
    cited = [citation for citation in answer.citations if citation.number == number]
    if not cited:
        raise NotFound(f"{answer_id} has no citation {number}")
    first = cited[0]
    lease, chunks = found.follower.lease(), []
    if lease:
        with lease:  # not abandoned when the client goes: the thread is through before the lease is
            chunks = await run_in_threadpool(lease.live.document, first.document_id)
    if not readable(asker.access, first.source, chunks[0].project if chunks else None):
        raise NotFound(f"the document of citation {number} of {answer_id} may not be read, or not any more")
    raw = await asyncio.to_thread(found.artifacts.store.head, first.raw_key) if first.raw_key else None
    around = surroundings(chunks, cited)
    shown = around or Surroundings("\n".join(one.quote for one in cited), 0, True, True)
    quotes = _spans(cited, around)
    return CitedPassage(
        number=number,
        document=CitedDocument(
            id=first.document_id,
            version=first.document_version,
            title=first.title,
            url=first.url,
            source=first.source,
            project=chunks[0].project if chunks else None,
        ),
        text=shown.text,
        quotes=quotes,
        start=quotes[0].start,
        end=quotes[0].end,
        before=shown.before,
        after=shown.after,
        notice=None if around else _notice(chunks),
        lineage=PassageLineage(
            raw_key=first.raw_key,
            raw_sha256=first.raw_sha256,
            locator=first.locator,
            raw_present=raw is not None,
            chunk_id=first.chunk_id,
            span=Span(start=first.start, end=first.end),
        ),
    )


def readable(access: frozenset[str] | None, source: str, project: str | None) -> bool:
    """Whether an access set lets a document through. Of one without a project, only the source is known."""
    return (
        access is None or f"{source}/*" in access or (project is not None and f"{source}/{project}" in access)
    )


def surroundings(chunks: Sequence[Chunk], cited: Sequence[Citation]) -> Surroundings | None:
    """The document's own text around the citations; None where it is another version, or has not the quotes.

    Args:
        chunks: All of the document, in reading order.
        cited: Citations of that document under one number.
    """
    version = cited[0].document_version
    at = [n for n, chunk in enumerate(chunks) if chunk.id in {one.chunk_id for one in cited}]
    if not at or any(chunk.document_version != version for chunk in chunks):
        return None
    first, last = min(at), max(at)
    if not all(follows(chunks[n], chunks[n - 1]) for n in range(first + 1, last + 1)):
        return None
    while first > 0 and follows(chunks[first], chunks[first - 1]):
        first -= 1
    while last + 1 < len(chunks) and follows(chunks[last + 1], chunks[last]):
        last += 1
    text, start = joined_text(chunks[first : last + 1]), chunks[first].start
    if any(text[one.start - start : one.end - start] != one.quote for one in cited):
        return None
    left = max(0, min(one.start for one in cited) - start - _AROUND)
    right = min(len(text), max(one.end for one in cited) - start + _AROUND)
    before, after = left > 0 or first > 0, right < len(text) or last + 1 < len(chunks)
    return Surroundings(text[left:right], start + left, before, after)


def _spans(cited: Sequence[Citation], around: Surroundings | None) -> list[Span]:
    if around:
        return [Span(start=one.start - around.start, end=one.end - around.start) for one in cited]
    spans, at = [], 0
    for one in cited:
        spans.append(Span(start=at, end=at + len(one.quote)))
        at += len(one.quote) + 1
    return spans


def _notice(chunks: Sequence[Chunk]) -> str:
    if chunks:
        return "The document has changed since; the release that serves now holds another version of it."
    return "The document is not in the release that serves now."
