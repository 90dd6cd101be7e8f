"""`POST /api/chat`: a question in, a cited answer or its events out."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from serving.access import Asker
from serving.answer import Answer, Filters, Question
from serving.coordinator import Coordinator
from serving.services import Services, services
from serving.streams import event_stream, frame, unless_gone

router = APIRouter(tags=["chat"])


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, description="Bounded by ALCHEMY_SERVING_MAX_QUESTION_CHARACTERS.")
    top_k: int | None = Field(None, ge=1, le=50, description="Passages that the finalist sees.")
    filters: Filters = Filters()
    stream: bool = False
    intuition: bool = Field(True, description="Ask the fine-tuned model too; its words come unverified.")


@router.post("/api/chat", response_model=Answer)
async def chat(
    body: ChatRequest, request: Request, asker: Asker, found: Annotated[Services, Depends(services)]
) -> Answer | Response:
    """Answers from the released knowledge base, or says that it does not know.

    With `stream`, server-sent events with increasing ids: status, sources, token, citation, and last done
    (the whole answer) or error.
    """
    question = Question(
        text=found.checked_question(body.question),
        top_k=body.top_k,
        filters=body.filters,
        intuition=body.intuition,
        asker=asker,
    )
    found.coordinator.admit()
    if body.stream:
        return event_stream(_frames(found.coordinator, question))
    return await unless_gone(request, found.coordinator.answer(question))


async def _frames(coordinator: Coordinator, question: Question) -> AsyncGenerator[str, None]:
    number = 0
    async with aclosing(coordinator.events(question)) as events:
        async for event in events:
            number += 1
            yield frame(event.model_dump_json(exclude={"event"}), event=event.event, number=number)
