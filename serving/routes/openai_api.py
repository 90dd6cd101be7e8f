"""The OpenAI-compatible API: `/v1/chat/completions`, plain and streamed, and `/v1/models`.

The last user message is the question. Citations, the release and what was degraded come in extra fields,
on the message or, streamed, on the final chunk; a client that knows nothing of them loses nothing but them.

The messages before it are the conversation that completes a follow-up question. `usage.counted_by` says how
tokens were counted (`usage`).
"""

import itertools
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from alchemy.errors import NotFound, Unavailable
from alchemy.retrieval.conversation import Turn
from serving.answer import Answer, Done, Failed, Question, Started, Token
from serving.coordinator import Underway
from serving.errors import error_response
from serving.people.access import Asker
from serving.released import Live
from serving.services import Services, services
from serving.streams import STREAMED, event_stream, frame, unless_gone

MODEL = "data-alchemy"
EMBEDDING_MODEL = f"{MODEL}-embedding"

router = APIRouter(prefix="/v1", tags=["openai"])


# A bound at all, here beyond the body's, makes pydantic refuse half a surrogate pair, which no UTF-8 holds.
BOUNDED = ConfigDict(extra="ignore", str_max_length=1 << 24)


class ContentPart(BaseModel):
    """Of the multi-modal form, the text part alone is understood."""

    model_config = BOUNDED

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    model_config = BOUNDED

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class CompletionRequest(BaseModel):
    """Sampling parameters of the original API are accepted and have no effect: the release sets them."""

    model_config = BOUNDED

    model: str = MODEL
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1

    @property
    def question(self) -> str:
        """The last user message."""
        return self._asked.text if self._asked else ""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What people and the service said before it."""
        said = itertools.takewhile(lambda message: message is not self._asked, self.messages)
        return tuple(Turn(m.role, m.text) for m in said if m.role in ("user", "assistant"))

    @property
    def _asked(self) -> ChatMessage | None:
        return next((m for m in reversed(self.messages) if m.role == "user"), None)


@router.get("/models")
async def models(found: Annotated[Services, Depends(services)]) -> dict[str, Any]:
    """The expert, one name per adapter of the release that serves, and what /v1/embeddings takes."""
    live = found.follower.current
    names = [MODEL, *(f"{MODEL}/{name}" for name in (live.adapters if live else ())), EMBEDDING_MODEL]
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": MODEL, "release": live and live.id}
            for name in names
        ],
    }


@router.post("/chat/completions", response_model=None, responses=STREAMED)
async def completions(
    body: CompletionRequest,
    request: Request,
    asker: Asker,
    found: Annotated[Services, Depends(services)],
) -> Response | dict[str, Any]:
    """Answers the last user message from the released knowledge base."""
    try:
        adapter = _adapter(body.model, found.follower.current)
    except NotFound as error:
        return error_response(404, str(error), "model_not_found", param="model")
    question = Question(
        text=found.checked_question(body.question, messages=len(body.messages)),
        adapter=adapter,
        asker=asker,
        turns=body.turns,
    )
    if body.stream:
        return event_stream(_chunks(found.coordinator.start(question), body))
    answer = await unless_gone(request, found.coordinator.answer(question))
    message: dict[str, Any] = {"role": "assistant", "content": answer.answer, "refusal": None}
    return {
        **_head(answer.id, "chat.completion", body.model, answer.release),
        "choices": [
            {"index": 0, "message": message | _extra(answer), "finish_reason": "stop", "logprobs": None}
        ],
        "usage": _usage(answer),
    }


async def _chunks(underway: Underway, body: CompletionRequest) -> AsyncGenerator[str, None]:
    head: dict[str, Any] = {}
    delta: dict[str, str] = {"role": "assistant"}  # with the first content only
    async with aclosing(underway.running.read()) as events:
        async for _, event in events:
            match event:
                case Started():
                    head = _head(event.id, "chat.completion.chunk", body.model, event.release)
                case Token():
                    yield _chunk(head, delta | {"content": event.text})
                    delta = {}
                case Done():
                    yield _chunk(head, delta, "stop", **_extra(event.answer))
                    if body.stream_options and body.stream_options.include_usage:
                        counts = {"choices": [], "usage": _usage(event.answer)}
                        yield frame(orjson.dumps(head | counts).decode())
                case Failed():
                    error = {"message": event.message, "type": "server_error", "param": None, "code": None}
                    yield frame(orjson.dumps({"error": error}).decode())
    yield frame("[DONE]")


def _chunk(head: dict[str, Any], delta: dict[str, str], finish: str | None = None, **extra: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return frame(orjson.dumps(head | {"choices": [choice]} | extra).decode())


def _usage(answer: Answer) -> dict[str, Any]:
    counted = answer.usage
    total = counted.prompt_tokens + counted.completion_tokens
    return counted.model_dump() | {"total_tokens": total}


def _head(identity: str, kind: str, model: str, release: str | None) -> dict[str, Any]:
    return {
        "id": identity,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": release,
    }


def _extra(answer: Answer) -> dict[str, Any]:
    row = answer.model_dump(
        mode="json",
        include={
            *("release", "answerable", "citations", "unsupported", "removed", "intuition", "standalone"),
            *("degraded", "filters", "dropped", "seconds"),
        },
    )
    return {"answer_id": answer.id} | row


def _adapter(model: str, live: Live | None) -> str | None:
    if model == MODEL:
        return None
    name = model.removeprefix(f"{MODEL}/")
    if live is None:
        raise Unavailable("no release is loaded yet; see /readyz")
    if name == model or name not in live.adapters:
        raise NotFound(f"model {model!r} does not exist; /v1/models lists those that do")
    return name
