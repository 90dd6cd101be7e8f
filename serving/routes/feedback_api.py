"""`/api/feedback`: rating an answer, and what a curator sees and approves of it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from serving.feedback import Feedback, FeedbackRequest, feedback_on
from serving.people.access import Asker, Curator
from serving.services import Services, services

router = APIRouter(prefix="/api/feedback", tags=["feedback"])


class FeedbackList(BaseModel):
    feedback: list[Feedback]


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
    rows = await found.feedbacks.all(curator.tenant, most)
    return FeedbackList(feedback=[row for row in rows if not (waiting and row.teaches)])


@router.post("/{feedback_id}/approve")
async def approve(
    feedback_id: str, curator: Curator, found: Annotated[Services, Depends(services)]
) -> Feedback:
    """Lets a person's feedback teach."""
    feedback = await found.feedbacks.get(feedback_id, curator.tenant)
    approved = feedback.model_copy(update={"teaches": True, "waits_for": None})
    await found.feedbacks.put(approved)
    return approved
