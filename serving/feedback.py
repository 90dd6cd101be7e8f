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

from alchemy.errors import AlchemyError, Conflict, NotFound
from alchemy.listing import RAW
from alchemy.store import Store
from alchemy.text.instructions import is_active, is_for_the_model
from alchemy.text.sanitize import Sanitizer
from serving.answers import AnswerRecord
from serving.people.access import Principal, covers
from serving.people.sealing import Sealing
from serving.state import PREFIX, State

log = logging.getLogger(__name__)

FOLDER = f"{RAW}/feedback/answers"

_RECORD = PREFIX + "feedback:"
_INDEX = PREFIX + "feedbacks:"  # + tenant: ids by time
_WAITING = PREFIX + "feedback-exports"  # ids that are to be written to the store
_AT_ONCE = 500  # read or exported in one round
_MOST = 10_000  # listed of a tenant
_TEXTS = ("question", "answer", "correction", "comment")

# Both look again, in the server: somebody may say something else meanwhile.
_APPROVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
return 1
"""
_DONE = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then redis.call('SREM', KEYS[2], ARGV[2]) end
"""


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
    access: frozenset[str] | None = Field(None, description="What they could read; null: everything.")
    teaches: bool = Field(description="Whether it becomes data; else it waits for a curator.")
    waits_for: str | None = Field(description="Why it does not teach yet.")

    def readable_by(self, principal: Principal) -> bool:
        """Whether they are of the tenant and may read all that the answer may rest on."""
        return self.tenant == principal.tenant and covers(principal.access, self.access)


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
            (pipe.sadd if feedback.teaches else pipe.srem)(_WAITING, feedback.id)
            return pipe.execute()

        await self._state.call(commands)

    async def approve(self, feedback_id: str, curator: Principal, said_at: str) -> Feedback:
        """Lets what was said at that time teach.

        Raises:
            NotFound: The curator may read none of that id.
            Conflict: The person has said something else since.
        """
        key = _RECORD + feedback_id
        row = await self._state.call(lambda redis: redis.get(key))
        feedback = self._opened(feedback_id, row) if row else None
        if feedback is None or not feedback.readable_by(curator):
            raise NotFound(f"no feedback {feedback_id}")
        approved = feedback.model_copy(update={"teaches": True, "waits_for": None})
        swap = (_APPROVE, 2, key, _WAITING, row, self._sealed(approved), feedback_id)
        if feedback.created_at != said_at or not await self._state.call(lambda redis: redis.eval(*swap)):
            raise Conflict("something else was said meanwhile; look again")
        return approved

    async def all(self, reader: Principal, most: int, *, waiting: bool = False) -> list[Feedback]:
        """What they may read, the latest first; with `waiting`, of what does not teach yet."""
        index, found = _INDEX + reader.tenant, list[Feedback]()
        for first in range(0, _MOST, _AT_ONCE):
            span = (index, first, first + _AT_ONCE - 1)
            ids = [one.decode() for one in await self._state.call(partial(_ids, span))]
            rows = await self._state.call(partial(_rows, ids)) if ids else []
            read = (self._opened(one, row) for one, row in zip(ids, rows, strict=True) if row)
            found += (one for one in read if one.readable_by(reader) and not (waiting and one.teaches))
            if len(found) >= most or len(ids) < _AT_ONCE:
                break
        return found[:most]

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
            (row,) = await self._state.call(partial(_rows, [one.decode()]))
            feedback = self._opened(one.decode(), row) if row else None
            if feedback and feedback.teaches:
                key = f"{FOLDER}/{feedback.id}.json"
                await asyncio.to_thread(self._store.put, key, self._exported(feedback))
            # A say that came in between waits again: it is another row now.
            await self._state.call(partial(_done, one.decode(), row))
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
        return kept.model_dump_json(exclude={"access", "teaches", "waits_for"}).encode() + b"\n"


async def _ids(span: tuple[str, int, int], redis: Any) -> list[bytes]:
    ids: list[bytes] = await redis.zrevrange(*span)
    return ids


async def _rows(ids: list[str], redis: Any) -> list[bytes | None]:
    rows: list[bytes | None] = await redis.mget([_RECORD + one for one in ids])
    return rows


async def _done(feedback_id: str, row: bytes | None, redis: Any) -> None:
    await redis.eval(_DONE, 2, _RECORD + feedback_id, _WAITING, row or b"", feedback_id)


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
        access=record.access,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        teaches=waits_for is None,
        waits_for=waits_for,
    )


def _waits_for(said: FeedbackRequest, asker: Principal) -> str | None:
    text = f"{said.correction}\n{said.comment}"
    if any(is_for_the_model(line) for line in text.splitlines()) or is_active(text):
        return "it speaks to a language model; a curator has to approve it"
    return None if asker.may("curator") else "a curator has to approve it"
