"""`/api/feedback`: rating an answer, and what a curator sees and approves of it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from serving.feedback import Feedback, FeedbackRequest, feedback_on
from serving.people.access import Asker, Curator
from serving.services import Services, services

router = APIRouter(prefix="/api/feedback", tags=["feedback"])


class FeedbackList(BaseModel):
    feedback: list[Feedback]


class Approval(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"created_at": "2026-11-29T09:12:44.031+00:00"}}
    )

    created_at: str = Field(max_length=64, description="Of the feedback, as it was read.")


@router.post("", status_code=201)
async def say(body: FeedbackRequest, asker: Asker, found: Annotated[Services, Depends(services)]) -> Feedback:
    """Rates an answer of one's own; says whether that teaches or waits for a curator."""
    record = await found.stored(body.answer_id, asker)
    feedback = feedback_on(record, body, asker)
    await found.feedbacks.put(feedback)
    return feedback


@router.get("")
async def said(
    curator: Curator,
    found: Annotated[Services, Depends(services)],
    waiting: bool = False,
    most: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> FeedbackList:
    """What the tenant's people said, the latest first; with `waiting`, what waits for a curator."""
    return FeedbackList(feedback=await found.feedbacks.all(curator, most, waiting=waiting))


@router.post("/{feedback_id}/approve")
async def approve(
    feedback_id: str, body: Approval, curator: Curator, found: Annotated[Services, Depends(services)]
) -> Feedback:
    """Lets what the curator has read teach; 409 where the person has said something else since."""
    return await found.feedbacks.approve(feedback_id, curator, body.created_at)
