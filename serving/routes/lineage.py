"""Where an answer comes from: `GET /v1/answers/{id}/lineage`.

Two walks: answer -> cited spans -> document -> raw object, and answer -> release -> index and adapters ->
everything that those were made from, down to the listings of the raw objects. The answer record carries
the spans, so the first walk works however old the release is.
"""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from alchemy.artifacts import Artifacts
from alchemy.errors import AlchemyError, NotFound
from alchemy.quoting import Citation
from alchemy.release import read_release
from serving.answer import Answer
from serving.people.access import Asker
from serving.services import Services, services

router = APIRouter(prefix="/v1", tags=["lineage"])


@router.get("/answers/{answer_id}")
async def stored_answer(
    answer_id: str, asker: Asker, found: Annotated[Services, Depends(services)]
) -> Answer:
    """The answer as it was given, for who asked."""
    return (await found.stored(answer_id, asker)).answer


@router.get("/answers/{answer_id}/lineage")
async def lineage(
    answer_id: str, asker: Asker, found: Annotated[Services, Depends(services)]
) -> dict[str, Any]:
    """From the answer back to the raw objects, and to the artifacts and runs that made its release."""
    answer = await stored_answer(answer_id, asker, found)
    return await asyncio.to_thread(trace, found.artifacts, answer)


def trace(artifacts: Artifacts, answer: Answer) -> dict[str, Any]:
    """The lineage of an answer as JSON. Parts that were pruned are there as {"missing": why}."""
    return {
        "answer": answer.id,
        "created_at": answer.created_at,
        "finalist": answer.finalist,
        "degraded": answer.degraded,
        "citations": [_citation(artifacts, citation) for citation in answer.citations],
        "intuition": answer.intuition and answer.intuition.model_dump(),
        "release": _release(artifacts, answer.release) if answer.release else None,
    }


def _citation(artifacts: Artifacts, citation: Citation) -> dict[str, Any]:
    return {
        "number": citation.number,
        "quote": citation.quote,
        "chunk": {"id": citation.chunk_id, "start": citation.start, "end": citation.end},
        "document": {
            "id": citation.document_id,
            "version": citation.document_version,
            "title": citation.title,
            "url": citation.url,
        },
        "raw": {
            "source": citation.source,
            "key": citation.raw_key,
            "sha256": citation.raw_sha256,
            "locator": citation.locator,
            "present": artifacts.store.head(citation.raw_key) is not None if citation.raw_key else False,
        },
    }


def _release(artifacts: Artifacts, release_id: str) -> dict[str, Any]:
    try:
        release = read_release(artifacts, release_id)
    except NotFound as error:
        return {"id": release_id, "missing": str(error)}
    parts = {"faiss_index": release.index, **release.adapters, "evaluation": release.evaluation}
    return {
        "id": release_id,
        **asdict(release),
        "artifacts": [_tree(artifacts, asset, version) for asset, version in parts.items() if version],
    }


def _tree(artifacts: Artifacts, asset: str, version: str) -> dict[str, Any]:
    try:
        return artifacts.lineage(asset, version)
    except AlchemyError as error:
        return {"asset": asset, "version": version, "missing": str(error)}
