"""`POST /ingest` and `POST /query`: a tenant's own collections beside the released knowledge base."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request

from alchemy.errors import NotFound
from serving.people.access import Asker, Curator, Principal, covers
from serving.rag.answering import answer
from serving.rag.ingestion import ingest
from serving.rag.wire import Answered, Ingested, IngestRequest, QueryRequest
from serving.services import Services, services
from serving.streams import unless_gone

router = APIRouter(tags=["rag"])

_Found = Annotated[Services, Depends(services)]


@router.post("/ingest")
async def bring_in(body: IngestRequest, request: Request, curator: Curator, found: _Found) -> Ingested:
    """Chunks, embeds and stores a document; the collection is made where it is not there.

    Secrets and personal data in text, metadata and id are masked first.
    """
    if not _may_read(curator, body.collection_name):
        raise HTTPException(403, f"your access set does not hold documents/{body.collection_name}")
    return await unless_gone(request, ingest(found.rag, body, curator))


@router.post("/query")
async def ask(body: QueryRequest, request: Request, asker: Asker, found: _Found) -> Answered:
    """Answers from the chunks of a collection, with numbered citations of `sources`.

    Where nothing can be searched, the answer says so and `degraded` names it.
    """
    question = found.checked_question(body.query)
    if not _may_read(asker, body.collection_name):
        raise NotFound("there is no such collection")
    answered = await unless_gone(request, answer(found.rag, body, question, asker))
    documents = [str(source.metadata["document_id"]) for source in answered.sources]
    found.people.watch.answered(asker.caller, question, documents)
    return answered


def _may_read(asker: Principal, collection: str) -> bool:
    """A collection is a project of the source `documents` to access sets."""
    return covers(asker.access, frozenset({f"documents/{collection}"}))
