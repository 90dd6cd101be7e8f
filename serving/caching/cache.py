"""The answer cache: what was answered before, found by the same question.

Two tiers. Exact: the question letter by letter (`equivalence.normalized`). Semantic: a question that means
the same (`equivalence.meaning`) and whose embedding is nearer than 0.92 by cosine to that of the stored one.
The guard is an equivalence, so its key is the index: a lookup reads the few entries that mean the same
instead of comparing with all, a process keeps no copy of anything, and what one process keeps all find at
once. Only where there are such entries is the question embedded at all.

Everything is parted by `CacheScope`; nothing is ever found across two scopes. Kept in the state server,
bounded in time, number and bytes, oldest out first. Without that server nothing is found and nothing is kept.

Not for running the pipeline: the coordinator asks here first, keeps what it made, and does the single flight.
"""

import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from alchemy.errors import Unavailable
from serving.answer import Answer
from serving.caching import cache_scripts as scripts
from serving.caching.cache_checks import agree, wilson
from serving.caching.equivalence import meaning, normalized, plain_wording
from serving.caching.today import depends_on_today
from serving.options import ServingOptions
from serving.people.sealing import Sealing
from serving.state import PREFIX, State
from serving.watching.metrics import Metrics

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Embed = Callable[[list[str]], Awaitable[Floats]]  # n texts -> [n, dimension], unit length
Tier = Literal["exact", "semantic"]

_PREFIX = PREFIX + "cache:"
_BATCH = 2000  # entries dropped by one script: the server does nothing else meanwhile


@dataclass(frozen=True, slots=True)
class CacheScope:
    """Who may share an answer: those whom the same release would give the same one."""

    release: str
    tenant: str
    access: str  # `Principal.access_digest`
    parameters: str  # whatever else the answer depends on: filters, top_k, adapter, model

    @property
    def id(self) -> str:
        """A digest of all four; part of the keys."""
        parts = orjson.dumps([self.release, self.tenant, self.access, self.parameters])
        return hashlib.sha256(parts).hexdigest()[:32]


class Entry(BaseModel):
    """A stored answer, with all that says where it is from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    release: str
    tenant: str
    created_at: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored answer that answers the question."""

    answer: Answer
    tier: Tier
    question: str  # the one it was made for
    similarity: float  # cosine of the two questions; 1 in the exact tier


@dataclass(frozen=True, slots=True)
class Figures:
    """What the cache holds for one tenant."""

    entries: int
    bytes: int
    scopes: int


class CacheManager:
    """The cache of one service. For one event loop; the entries are shared with every other process."""

    def __init__(
        self,
        state: State,
        metrics: Metrics,
        options: ServingOptions,
        *,
        sealing: Sealing | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._metrics = metrics
        self._options = options
        self._sealing = sealing or Sealing()
        self._clock = clock
        self._random = random.Random()  # noqa: S311 - draws a sample
        self._false = 0
        self.hits: dict[Tier, int] = {"exact": 0, "semantic": 0}  # of this process, as are the next two
        self.misses = self.checks = 0
        self.problem: str | None = None  # why nothing is found or kept

    @property
    def false_hits(self) -> tuple[float, float, float] | None:
        """Share of checked semantic hits that were false, with a 95 % interval; None before the first."""
        return wilson(self._false, self.checks) if self.checks else None

    async def find(self, question: str, scope: CacheScope, embed: Embed) -> Hit | None:
        """The stored answer to this question, or None. Never raises; see `problem`."""
        if not self._options.cache:
            return None
        exact, meant = self._keys(question)
        asked = [scope.id, exact, meant if self._options.cache_semantic else ""]
        rows = await self._call(scripts.FIND, asked)
        hit = await self._hit(question, exact, scope, rows, embed) if rows else None
        if hit is None:
            self.misses += 1
            self._metrics.cache_misses.inc()
        else:
            self.hits[hit.tier] += 1
            self._metrics.cache_hits.labels(hit.tier).inc()
        return hit

    async def keep(self, question: str, scope: CacheScope, embed: Embed, answer: Answer) -> bool:
        """Stores an answer that is worth it (`worth_keeping`); whether it did. Never raises."""
        options = self._options
        if not options.cache or not worth_keeping(answer) or answer.release != scope.release:
            return False
        exact, meant = self._keys(question)
        vector = b""
        if meant and options.cache_semantic:
            embedded = await self._embedded(question, embed)
            vector = b"" if embedded is None else embedded.astype("<f2").tobytes()
        entry = Entry(
            question=question,
            release=scope.release,
            tenant=scope.tenant,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            # Whose conversation it was made in is nobody else's business.
            answer=answer.model_copy(update={"session": None, "standalone": None}),
        )
        record = self._sealing.seal(entry.model_dump_json().encode(), scope.id)
        if len(record) + len(vector) > options.cache_bytes:
            return False
        ttl_s = options.cache_ttl_s if answer.answerable else options.cache_refusal_ttl_s
        now = int(self._clock() * 1000)
        arguments = [
            scope.id, exact, meant if vector else "", record, vector, now, ttl_s * 1000,
            options.cache_entries, options.cache_bytes, scope.tenant, scope.release,
            *sorted({citation.document_id for citation in answer.citations}),
        ]  # fmt: skip
        return await self._call(scripts.KEEP, arguments) is not None

    async def forget(self, document_id: str, *, tenant: str | None = None) -> int:
        """Drops every entry that cites the document, of one tenant or of all; how many.

        Raises:
            Unavailable: The state server does not answer; the entries may still be found.
        """
        return await self._dropped(scripts.FORGET, [document_id, tenant or ""])

    async def clear(self, *, tenant: str | None = None, release: str | None = None) -> int:
        """Drops the entries of a tenant, of a release, of both together, or all; how many.

        Raises:
            Unavailable: The state server does not answer.
        """
        total = 0
        while dropped := await self._dropped(scripts.CLEAR, [tenant or "", release or "", _BATCH]):
            total += dropped
        return total

    async def figures(self, tenant: str) -> Figures:
        """What is held for a tenant. Raises Unavailable."""
        entries, size, scopes = await self._run(scripts.FIGURES, [tenant, int(self._clock() * 1000)])
        return Figures(entries, size, scopes)

    def sampled(self) -> bool:
        """Whether this semantic hit is one to regenerate and `check`."""
        return self._random.random() < self._options.cache_shadow

    def check(self, hit: Hit, fresh: Answer) -> bool:
        """Whether a fresh answer says what the hit said (`agree`); counted for the rate of false hits."""
        agreed = agree(hit.answer, fresh)
        self.checks += 1
        self._metrics.cache_checks.inc()
        if not agreed:
            self._false += 1
            self._metrics.cache_false_hits.inc()
            log.warning("a semantic hit was false", extra={"cached": hit.answer.id, "fresh": fresh.id})
        rate, low, high = wilson(self._false, self.checks)
        for bound, value in (("estimate", rate), ("low", low), ("high", high)):
            self._metrics.cache_false_rate.labels(bound).set(value)
        return agreed

    async def _hit(
        self, question: str, exact: str, scope: CacheScope, rows: list[bytes], embed: Embed
    ) -> Hit | None:
        """The best of what FIND gave: the exact record, or id, record and vector of what means the same."""
        if rows[0]:
            entry = await self._entry(exact, rows[0], scope)
            if entry and normalized(entry.question) == normalized(question):
                return Hit(entry.answer, "exact", entry.question, 1.0)
            return None
        meant, candidates = meaning(question), list[tuple[str, Entry, bytes]]()
        for row in range(1, len(rows), 3):
            key, record, vector = rows[row].decode(), rows[row + 1], rows[row + 2]
            entry = await self._entry(key, record, scope)
            # Asked again: the key may be that of another version of the guard.
            if entry and meaning(entry.question) == meant:
                candidates.append((key, entry, vector))
        asked = await self._embedded(question, embed) if candidates else None
        if asked is None:
            return None
        best: Hit | None = None
        for key, entry, data in candidates:
            if len(data) != 2 * asked.size:
                await self._drop(key, scope, "a vector of the wrong length")
                continue
            cosine = _cosine(asked, np.frombuffer(data, "<f2").astype(np.float32))
            if cosine > (best.similarity if best else self._options.cache_similarity):
                best = Hit(entry.answer, "semantic", entry.question, cosine)
        return best

    def _keys(self, question: str) -> tuple[str, str]:
        """The question's keys in the two tiers; the second is empty where the guard cannot read it."""
        # What counts from today is another question tomorrow.
        day = (
            datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
            if depends_on_today(question)
            else ""
        )
        meant = meaning(question)
        exact = hashlib.sha256(f"{day}\n{normalized(question)}".encode()).hexdigest()[:32]
        return exact, f"{meant.key}{day}" if meant else ""

    async def _entry(self, key: str, record: bytes, scope: CacheScope) -> Entry | None:
        """The record, if it is whole and of this scope; else it is dropped."""
        try:
            entry = Entry.model_validate_json(self._sealing.open(record, scope.id))
        except (ValidationError, Unavailable):  # damaged, or sealed with a key that is gone
            await self._drop(key, scope, "a record that cannot be read")
            return None
        if (entry.release, entry.tenant) != (scope.release, scope.tenant):
            await self._drop(key, scope, "a record of another scope")
            return None
        return entry

    async def _drop(self, key: str, scope: CacheScope, why: str) -> None:
        self._metrics.cache_corrupt.inc()
        log.warning("a corrupt entry of the cache is dropped", extra={"reason": why})
        await self._call(scripts.DROP, [scope.id, key])

    async def _embedded(self, question: str, embed: Embed) -> Floats | None:
        try:
            return (await embed([plain_wording(question)]))[0]
        except Exception as error:  # a cache that cannot embed is no reason to fail an answer
            log.warning("the cache cannot embed", extra={"reason": repr(error)})
            return None

    async def _dropped(self, script: str, arguments: list[Any]) -> int:
        return int((await self._run(script, arguments))[0])

    async def _call(self, script: str, arguments: list[Any]) -> Any:
        """What the script returns, or None where the state server does not answer."""
        try:
            return await self._run(script, arguments)
        except Unavailable:
            return None

    async def _run(self, script: str, arguments: list[Any]) -> Any:
        try:
            result = await self._state.call(
                lambda redis: redis.register_script(script)(keys=[_PREFIX], args=arguments)
            )
        except Unavailable as error:
            self.problem = str(error)
            raise
        self.problem = None
        if script in scripts.CHANGES:
            self._metrics.cache_entries.set(result[1])
            self._metrics.cache_bytes.set(result[2])
        return result


def worth_keeping(answer: Answer) -> bool:
    """Whether an answer may be given to the next who asks.

    It must be whole (nothing degraded), from a release, and either a refusal after a search or an answer with
    citations. A question that leans on its conversation must not come here at all: the coordinator passes
    the standalone question, or nothing.
    """
    return bool(answer.release and not answer.degraded and (answer.citations or not answer.answerable))


def _cosine(one: Floats, other: Floats) -> float:
    # Both again, although the embedder norms them: half precision and other embedders are not exact.
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = float(one @ other) / scale if scale else 0.0
    return cosine if np.isfinite(cosine) else 0.0
