"""Conversations over HTTP: each principal their own, to read, rename, take along and delete."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from serving.people.access import Asker, Principal
from serving.people.sessions import Conversation, Session, Sessions
from serving.services import Services, services

router = APIRouter(prefix="/api", tags=["sessions"])

_Found = Annotated[Services, Depends(services)]
_EXAMPLE: dict[str, Any] = {"title": "How often does the gateway retry?"}


class NewSession(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": _EXAMPLE})

    title: str = Field("", max_length=200, description="Empty: the first question becomes the title.")


class Title(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": _EXAMPLE})

    title: str = Field(min_length=1, max_length=200)


class Listed(BaseModel):
    sessions: list[Session]


class Deleted(BaseModel):
    deleted: int


@router.get("/sessions")
async def list_sessions(asker: Asker, found: _Found) -> Listed:
    """The conversations, the last used first."""
    return Listed(sessions=await found.people.sessions.of(asker))


@router.post("/sessions", status_code=201)
async def create_session(asker: Asker, found: _Found, body: NewSession | None = None) -> Session:
    """A new conversation; its id goes into the questions that belong to it."""
    return await found.people.sessions.create(asker, body.title if body else "")


@router.get("/sessions/{session_id}")
async def read_session(session_id: str, asker: Asker, found: _Found) -> Conversation:
    """A conversation with its messages, oldest first."""
    return await found.people.sessions.get(asker, session_id)


@router.patch("/sessions/{session_id}", status_code=204, response_class=Response)
async def rename_session(session_id: str, body: Title, asker: Asker, found: _Found) -> None:
    """Another title."""
    await found.people.sessions.rename(asker, session_id, body.title)


@router.delete("/sessions/{session_id}", status_code=204, response_class=Response)
async def delete_session(session_id: str, asker: Asker, found: _Found) -> None:
    """Deletes a conversation."""
    await found.people.sessions.delete(asker, session_id)


@router.get(
    "/history",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "A conversation on each line."}},
)
async def export_history(asker: Asker, found: _Found) -> StreamingResponse:
    """All conversations with their messages, to take along."""
    # Read before the answer begins: a state server that is gone is a 503, not a broken file.
    await found.people.sessions.of(asker)
    found.people.audit.record("history_exported", asker)
    return StreamingResponse(_lines(found.people.sessions, asker), media_type="application/x-ndjson")


@router.delete("/history")
async def delete_history(asker: Asker, found: _Found) -> Deleted:
    """Deletes every conversation."""
    deleted = await found.people.sessions.delete_all(asker.owner)
    found.people.audit.record("history_deleted", asker, sessions=deleted)
    return Deleted(deleted=deleted)


async def _lines(sessions: Sessions, asker: Principal) -> AsyncGenerator[bytes, None]:
    async for conversation in sessions.export(asker):
        yield conversation.model_dump_json().encode() + b"\n"
