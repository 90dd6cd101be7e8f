"""What people say about answers, and how it becomes data.

Each person has one say on an answer; a later one replaces it. It is kept in the state server, and what may
teach is exported to `raw/feedback/`, one object for each, where the feedback sensor finds it. What a curator
or an admin says teaches at once; what a reader says, and any text that gives orders to a language model,
waits until a curator approves it. Texts are masked before they leave the service.
"""

import asyncio
import hashlib
import logging
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alchemy.errors import AlchemyError, NotFound
from alchemy.listing import RAW
from alchemy.store import Store
from alchemy.text.instructions import is_active, is_for_the_model
from alchemy.text.sanitize import Sanitizer
from serving.answers import AnswerRecord
from serving.people.access import Principal
from serving.people.sealing import Sealing
from serving.state import PREFIX, State

log = logging.getLogger(__name__)

FOLDER = f"{RAW}/feedback/answers"

_RECORD = PREFIX + "feedback:"
_INDEX = PREFIX + "feedbacks:"  # + tenant: ids by time
_WAITING = PREFIX + "feedback-exports"  # ids that are to be written to the store
_AT_ONCE = 500  # exported in one round
_MOST = 10_000  # listed of a tenant
_TEXTS = ("question", "answer", "correction", "comment")


class FeedbackRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"answer_id": "ans-5e1f", "rating": 1}]},
    )

    answer_id: str = Field(max_length=64)
    rating: Literal[1, -1] = Field(description="1: it helped; -1: it did not.")
    correction: str = Field("", max_length=8000, description="What the answer should have said.")
    comment: str = Field("", max_length=2000)
    wrong_citations: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        default_factory=list,
        max_length=50,
        description="Numbers of citations that do not hold.",
    )


class Feedback(BaseModel):
    """One person's say on one answer, as it is kept."""

    model_config = ConfigDict(frozen=True)

    id: str
    answer_id: str
    release: str | None
    question: str
    answer: str
    rating: Literal[1, -1]
    correction: str
    comment: str
    citations: list[str] = Field(description="Ids of the documents that the rating speaks of.")
    user: str
    tenant: str
    created_at: str
    teaches: bool = Field(description="Whether it becomes data; else it waits for a curator.")
    waits_for: str | None = Field(description="Why it does not teach yet.")


class Feedbacks:
    """Keeps what was said, and exports what teaches. Raises Unavailable without the state server."""

    def __init__(
        self, state: State, sealing: Sealing, store: Store, sanitizer: Sanitizer, *, export_s: float
    ) -> None:
        self._state = state
        self._sealing = sealing
        self._store = store
        self._sanitizer = sanitizer
        self._export_s = export_s
        self.problem: str | None = None  # why the last export failed

    async def put(self, feedback: Feedback) -> None:
        """Keeps it in place of what the same person said about the answer before."""
        row, index = self._sealed(feedback), _INDEX + feedback.tenant

        def commands(redis: Any) -> Any:
            pipe = redis.pipeline()
            pipe.set(_RECORD + feedback.id, row)
            pipe.zadd(index, {feedback.id: datetime.fromisoformat(feedback.created_at).timestamp()})
            pipe.zremrangebyrank(index, 0, -_MOST - 1)
            if feedback.teaches:
                pipe.sadd(_WAITING, feedback.id)
            return pipe.execute()

        await self._state.call(commands)

    async def get(self, feedback_id: str, tenant: str) -> Feedback:
        """Raises NotFound where the tenant has none of that id."""
        row = await self._state.call(lambda redis: redis.get(_RECORD + feedback_id))
        feedback = self._opened(feedback_id, row) if row else None
        if feedback is None or feedback.tenant != tenant:
            raise NotFound(f"no feedback {feedback_id}")
        return feedback

    async def all(self, tenant: str, most: int) -> list[Feedback]:
        """The tenant's, the latest first."""
        ids = await self._state.call(lambda redis: redis.zrevrange(_INDEX + tenant, 0, most - 1))
        if not ids:
            return []
        rows = await self._state.call(lambda redis: redis.mget([_RECORD + one.decode() for one in ids]))
        return [self._opened(one.decode(), row) for one, row in zip(ids, rows, strict=True) if row]

    async def run(self) -> None:
        """Exports for ever, every `export_s` seconds; what fails is tried again the next time."""
        while True:
            await asyncio.sleep(self._export_s)
            try:
                await self.export()
                self.problem = None
            except AlchemyError as error:
                self.problem = f"feedback waits for export: {error}"
                log.warning("feedback is not exported", extra={"reason": str(error)})
            except Exception as error:  # the exporter must outlive anything; what happened is in the log
                self.problem = f"feedback waits for export: {type(error).__name__}"
                log.exception("feedback is not exported")

    async def export(self) -> int:
        """Writes what waits to the store; returns how many. Raises Unavailable, and loses nothing by it."""
        ids = await self._state.call(lambda redis: redis.srandmember(_WAITING, _AT_ONCE))
        for one in ids:
            row = await self._state.call(partial(_row, one))
            if row:
                feedback = self._opened(one.decode(), row)
                key = f"{FOLDER}/{feedback.id}.json"
                await asyncio.to_thread(self._store.put, key, self._exported(feedback))
            # A say that came in between waits again: it is another row now.
            await self._state.call(partial(_done, one, row))
        return len(ids)

    def _sealed(self, feedback: Feedback) -> bytes:
        return self._sealing.seal(feedback.model_dump_json().encode(), _RECORD + feedback.id)

    def _opened(self, feedback_id: str, row: bytes) -> Feedback:
        return Feedback.model_validate_json(self._sealing.open(row, _RECORD + feedback_id))

    def _exported(self, feedback: Feedback) -> bytes:
        """The record as `alchemy.sources.feedback` reads it, without secrets, names or what is only ours."""
        texts = {name: self._sanitizer.mask(getattr(feedback, name)) for name in _TEXTS}
        user = self._sanitizer.person(feedback.user)
        kept = feedback.model_copy(update={**texts, "user": user})
        return kept.model_dump_json(exclude={"teaches", "waits_for"}).encode() + b"\n"


async def _row(feedback_id: bytes, redis: Any) -> bytes | None:
    row: bytes | None = await redis.get(_RECORD + feedback_id.decode())
    return row


async def _done(feedback_id: bytes, row: bytes | None, redis: Any) -> None:
    if await _row(feedback_id, redis) == row:
        await redis.srem(_WAITING, feedback_id)


def feedback_on(record: AnswerRecord, said: FeedbackRequest, asker: Principal) -> Feedback:
    """What a person says about an answer; the rating speaks of the citations that they found right or wrong.

    With a bad rating that names wrong citations, of those; else of all that were not called wrong.
    """
    answer = record.answer
    wrong = set(said.wrong_citations)
    if unknown := sorted(wrong - {citation.number for citation in answer.citations}):
        raise NotFound(f"the answer has no citation {unknown[0]}")
    of_wrong = said.rating < 0 and bool(wrong)
    documents = [c.document_id for c in answer.citations if (c.number in wrong) == of_wrong]
    waits_for = _waits_for(said, asker)
    return Feedback(
        id=hashlib.sha256(f"{answer.id}\0{asker.tenant}\0{asker.name}".encode()).hexdigest()[:24],
        answer_id=answer.id,
        release=answer.release,
        question=record.question,
        answer=answer.answer,
        rating=said.rating,
        correction=said.correction,
        comment=said.comment,
        citations=list(dict.fromkeys(documents)),
        user=asker.name,
        tenant=asker.tenant,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        teaches=waits_for is None,
        waits_for=waits_for,
    )


def _waits_for(said: FeedbackRequest, asker: Principal) -> str | None:
    text = f"{said.correction}\n{said.comment}"
    if any(is_for_the_model(line) for line in text.splitlines()) or is_active(text):
        return "it speaks to a language model; a curator has to approve it"
    return None if asker.may("curator") else "a curator has to approve it"
