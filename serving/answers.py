"""Answers by id, for lineage, feedback and the cache: what was said to whom, kept for a while."""

from pydantic import BaseModel, ConfigDict

from serving.answer import Answer
from serving.people.access import Principal, covers
from serving.people.sealing import Sealing
from serving.state import PREFIX, State

_PREFIX = PREFIX + "answer:"


class AnswerRecord(BaseModel):
    """An answer with what it answers, and whose it is."""

    model_config = ConfigDict(frozen=True)

    answer: Answer
    question: str
    user: str
    tenant: str
    access: frozenset[str] | None = None  # what they could read, and so what it may quote

    def readable_by(self, principal: Principal) -> bool:
        """Its asker, and admins of the tenant who may read as much; nobody else learns that it exists."""
        administers = principal.may("admin") and covers(principal.access, self.access)
        return self.tenant == principal.tenant and (self.user == principal.name or administers)


class Answers:
    """Keeps answer records. Every method raises Unavailable when the state server does not answer."""

    def __init__(self, state: State, sealing: Sealing, *, ttl_s: int) -> None:
        self._state = state
        self._sealing = sealing
        self._ttl_s = ttl_s

    async def put(self, record: AnswerRecord) -> None:
        """Stores the record for its time to live."""
        key = _PREFIX + record.answer.id
        row = self._sealing.seal(record.model_dump_json().encode(), key)
        await self._state.call(lambda redis: redis.set(key, row, ex=self._ttl_s))

    async def get(self, answer_id: str) -> AnswerRecord | None:
        """The record, or None when there is none of that id (any more)."""
        key = _PREFIX + answer_id
        row = await self._state.call(lambda redis: redis.get(key))
        return None if row is None else AnswerRecord.model_validate_json(self._sealing.open(row, key))
