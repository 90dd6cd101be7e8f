"""`POST /api/chat`: a question in, a cited answer or its events out, which may be read again or stopped."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from alchemy.errors import NotFound, Unavailable
from alchemy.retrieval.conversation import MOST_TURNS
from serving.answer import Answer, Done, Filters, Question
from serving.coordinator import Underway
from serving.people.access import Asker, Principal
from serving.services import Services, services
from serving.streams import STREAMED, event_stream, frame, unless_gone

router = APIRouter(tags=["chat"])


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, description="Bounded by ALCHEMY_SERVING_MAX_QUESTION_CHARACTERS.")
    session: str | None = Field(
        None,
        max_length=64,
        description="Of /api/sessions: a conversation that goes on with this.",
    )
    top_k: int | None = Field(None, ge=1, le=50, description="Passages that the finalist sees.")
    filters: Filters = Filters()
    stream: bool = False
    intuition: bool = Field(True, description="Ask the fine-tuned model too; its words come unverified.")


@router.post("/api/chat", response_model=Answer, responses=STREAMED)
async def chat(
    body: ChatRequest, request: Request, asker: Asker, found: Annotated[Services, Depends(services)]
) -> Answer | Response:
    """Answers from the released knowledge base, or says that it does not know.

    With `stream`, server-sent events with increasing ids: started, status, sources, token, citation, usage,
    and last done (the whole answer), error or stopped.
    """
    question = await asked(body, asker, found)
    if not body.stream:
        return await unless_gone(request, found.coordinator.answer(question))
    return event_stream(frames(found.coordinator.start(question, linger_s=found.options.resume_s)))


@router.get("/api/answers/{answer_id}/events", response_class=StreamingResponse)
async def go_on(
    answer_id: str,
    asker: Asker,
    found: Annotated[Services, Depends(services)],
    last_event_id: Annotated[int, Header(ge=0, description="The last event that was seen.")] = 0,
) -> Response:
    """The events of an answer after the last that was seen, for a stream that broke.

    An answer that is done for longer than a minute has one event left: `done`, with all of it.
    """
    underway = found.coordinator.find(answer_id, asker)
    if underway:
        return event_stream(frames(underway, last_event_id))
    answer = (await found.stored(answer_id, asker)).answer
    return event_stream(_single(frame(Done(answer=answer).model_dump_json(), event="done")))


@router.delete("/api/answers/{answer_id}", status_code=204)
async def stop(answer_id: str, asker: Asker, found: Annotated[Services, Depends(services)]) -> None:
    """Stops an answer that is being made; one that is done stays as it is."""
    underway = found.coordinator.find(answer_id, asker)
    if underway is None:
        raise NotFound(f"no answer {answer_id} of yours is under way")
    underway.stop()


async def asked(body: ChatRequest, asker: Principal, found: Services) -> Question:
    """The question as the coordinator takes it.

    Raises:
        BadInput: It is over the bounds.
        NotFound: The asker has no such session.
    """
    text, turns = found.checked_question(body.question), []
    if body.session:
        # Without the state server the question goes as it is, and its answer says that it was not kept.
        with suppress(Unavailable):
            turns = await found.people.sessions.turns(asker, body.session, MOST_TURNS)
    return Question(
        text=text,
        top_k=body.top_k,
        filters=body.filters,
        intuition=body.intuition,
        asker=asker,
        session=body.session,
        turns=tuple(turns),
    )


async def frames(underway: Underway, after: int = 0) -> AsyncGenerator[str, None]:
    """The events of an answer as server-sent events with their numbers."""
    async with aclosing(underway.running.read(after)) as events:
        async for number, event in events:
            yield frame(event.model_dump_json(exclude={"event"}), event=event.event, number=number)


async def _single(text: str) -> AsyncGenerator[str, None]:
    yield text
