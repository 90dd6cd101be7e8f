"""How the service, its release, its data and its search are: what /readyz tells and the gauges show.

A service with a release is ready, whatever else is wrong: what is missing is named, with why, and never takes
the pod away from the questions that it can still answer. Whether the search still finds what it should is
asked, not supposed: now and then a question of the release's own evaluation, one that was found there, is
searched in the live index. /readyz is open to everyone, so no question's text is in it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol

from alchemy.artifacts import Artifacts
from alchemy.errors import AlchemyError, NotFound, Unavailable
from alchemy.evaluation.report import read_report
from alchemy.parts import read_parts
from alchemy.records import SftPair, fingerprint
from alchemy.release import read_release
from alchemy.retrieval.index import Filters
from alchemy.settings import SearchOptions
from serving.options import ServingOptions
from serving.released import Follower, Live
from serving.state import State
from serving.watching.logs import log_problem
from serving.watching.metrics import Metrics

log = logging.getLogger(__name__)

MEASURES = ("ndcg_at_10", "recall_at_5", "recall_at_20", "mrr_at_10")

_ROUND_S = 1.0  # between two looks at everything but the canary
_LAG_STEP_S = 0.1
_LAG_STEPS = 600  # a minute: no scrape misses a blocked loop
_PAIRS = 5000  # held-out pairs that are looked through for canaries
_CANARIES = 20
_FOUND_WITHIN = 5  # documents, as the evaluation's recall_at_5
_WIDE = 50  # passages: 5 documents may need many
_LATE_S = 15.0  # without a look at the aliases


@dataclass(frozen=True, slots=True)
class Canary:
    """A held-out question that the release's evaluation found the document of."""

    question: str
    document_id: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the store knows of a release."""

    released_at: str
    data_at: str | None  # of the newest raw listing that it was made from
    evaluated: Mapping[str, float] = field(default_factory=dict)  # of MEASURES
    canaries: tuple[Canary, ...] = ()


def read_facts(artifacts: Artifacts, release_id: str) -> Facts:
    """Reads manifests, the evaluation's report and held-out pairs. Blocks; raises AlchemyError."""
    release = read_release(artifacts, release_id)
    listings = _listings(artifacts, "faiss_index", release.index)
    report: dict[str, Any] = {}
    if release.evaluation:
        report = read_report(artifacts, release.evaluation)
    measured = report.get("retrieval") or {}
    return Facts(
        released_at=artifacts.get("release", release_id).created_at,
        data_at=max(listings, default=None),
        evaluated={name: measured[name]["mean"] for name in MEASURES if name in measured},
        canaries=tuple(_canaries(artifacts, report)),
    )


class Watched(Protocol):
    """A part of the service that says what is the matter with it."""

    @property
    def problem(self) -> str | None: ...


class LoopLag:
    """How late the event loop wakes who asked to be woken: what blocks it shows here."""

    def __init__(self) -> None:
        self._late: deque[float] = deque([0.0], maxlen=_LAG_STEPS)

    def worst(self) -> float:
        """Seconds, of the last minute."""
        return max(self._late)

    async def run(self) -> None:
        """Measures until canceled."""
        clock = asyncio.get_running_loop().time
        while True:
            asked = clock()
            await asyncio.sleep(_LAG_STEP_S)
            self._late.append(clock() - asked - _LAG_STEP_S)


class Health:
    """Watches one app."""

    def __init__(
        self,
        follower: Follower,
        artifacts: Artifacts,
        state: State,
        metrics: Metrics,
        options: ServingOptions,
        search: SearchOptions,
        watched: Mapping[str, Watched],
    ) -> None:
        self._watched = watched
        self._follower = follower
        self._artifacts = artifacts
        self._state = state
        self._metrics = metrics
        self._options = options
        self._search = search.model_copy(update={"top_k": _WIDE})
        self._pool = ThreadPoolExecutor(2, "health")
        self._pinging = asyncio.Lock()
        self._lag = LoopLag()
        self._facts: Facts | None = None
        self._facts_of = self._facts_problem = ""
        self._asked = 0
        self._canary_at = 0.0  # time.monotonic() of the next one
        self._hit: bool | None = None
        self._started = time.time()
        metrics.loop_lag.set_function(self._lag.worst)

    async def run(self) -> None:
        """Watches until canceled."""
        measuring = asyncio.create_task(self._lag.run())
        try:
            while True:
                try:
                    await self.look()
                except Exception:  # what watches must outlive what it watches
                    log.exception("looking after the service failed")
                await asyncio.sleep(min(_ROUND_S, self._options.canary_s or _ROUND_S))
        finally:
            measuring.cancel()

    def close(self) -> None:
        """Ends what is not being read already."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> None:
        """One round: the facts of a new release, a canary when it is time, and the gauges."""
        live = self._follower.current
        if live and live.id != self._facts_of:
            await self._learn(live)
        if self._options.canary_s and time.monotonic() >= self._canary_at:
            self._canary_at = time.monotonic() + self._options.canary_s
            await self._ask()
        await self.report()

    async def report(self) -> dict[str, Any]:
        """The body of /readyz; also sets the gauges."""
        follower, live, facts = self._follower, self._follower.current, self._facts
        problems = await self._problems()
        self._metrics.health(bool(live), problems)
        checked = round(time.time() - follower.checked_at, 1) if follower.checked_at else None
        release = live.release if live else None
        return {
            "ready": live is not None,
            "release": live and live.id,
            "champion": follower.champion or None,
            "pinned": follower.pinned or None,  # it serves, whatever the champion is
            "loading": follower.loading,
            "champion_checked_s_ago": checked,
            "problems": {name: text for name, text in problems.items() if text},
            "service": {
                "up_s": round(time.time() - self._started, 1),
                "event_loop_lag_s": round(self._lag.worst(), 4),
            },
            "model": {
                "base_model": release and release.base_model,
                "embedder": release and release.embedder,
                "reranker": release and release.reranker,
                "adapters": list(live.adapters) if live else [],
            },
            "data": {
                "released_at": facts and facts.released_at,
                "data_at": facts and facts.data_at,
                "release_age_s": facts and _age(facts.released_at),
                "data_age_s": _age(facts.data_at) if facts and facts.data_at else None,
            },
            "search": {
                "evaluated": dict(facts.evaluated) if facts else {},
                "canaries": len(facts.canaries) if facts else 0,
                "canaries_asked": self._asked,
                "canary_found": self._hit,
            },
        }

    async def _problems(self) -> dict[str, str | None]:
        follower, live = self._follower, self._follower.current
        history = None
        try:
            async with self._pinging:  # of two at once, each would wait for a server that swallows packets
                await self._state.ping()
        except Unavailable as error:
            history = str(error)
        late = time.time() - follower.checked_at if follower.checked_at else 0.0
        unread = f"the release aliases were last read {late:.0f} s ago" if late > _LATE_S else None
        missed = "a question that the release's evaluation found is not found by the live search"
        return {
            "release": follower.problem or unread,
            "parts": "; ".join(live.problems) if live else None,
            "history": history,
            "data": self._facts_problem or self._stale(),
            "search": missed if self._hit is False else None,
            "log": log_problem(),
            **{name: part.problem for name, part in self._watched.items()},
        }

    def _stale(self) -> str | None:
        facts, limit = self._facts, self._options.stale_after_s
        if facts is None or not facts.data_at or (age := _age(facts.data_at)) <= limit:
            return None
        return f"the newest raw data is {age / 86400:.1f} days old, over {limit / 86400:.1f}"

    async def _learn(self, live: Live) -> None:
        try:
            reading = self._pool.submit(read_facts, self._artifacts, live.id)
            self._facts = await asyncio.wrap_future(reading)
        except AlchemyError as error:
            self._facts_problem = f"what the store knows of the release cannot be read: {error}"
            return
        self._facts_of, self._facts_problem = live.id, ""
        self._asked, self._canary_at, self._hit = 0, 0.0, None
        self._metrics.knows(self._facts.evaluated, self._ages)

    def _ages(self) -> dict[str, float]:
        """For the scrape: seconds since the release was made and since its newest raw data was listed."""
        if self._facts is None:
            return {}
        known = {"release": self._facts.released_at, "data": self._facts.data_at}
        return {name: _age(at) for name, at in known.items() if at}

    async def _ask(self) -> None:
        lease = self._follower.lease()
        if lease is None:
            return
        with lease:
            if self._facts is None or self._facts_of != lease.live.id or not self._facts.canaries:
                return
            canary = self._facts.canaries[self._asked % len(self._facts.canaries)]
            try:
                async with asyncio.timeout(self._options.search_s):
                    asked = (canary.question, self._search, Filters(), None)
                    result = await lease.submit(self._pool, lease.live.search, *asked)
                found = list(dict.fromkeys(passage.chunk.document_id for passage in result.passages))
                self._hit = canary.document_id in found[:_FOUND_WITHIN]
            except Exception as error:
                self._hit = False
                log.warning("the canary's search failed", extra={"reason": repr(error)})
        self._asked += 1
        self._metrics.canary.set(self._hit)
        self._metrics.canaries.labels("found" if self._hit else "missed").inc()


def _listings(artifacts: Artifacts, asset: str, version: str) -> Iterator[str]:
    """When each raw listing was made that the artifact comes from."""
    seen, ahead = set(), [(asset, version)]
    while ahead:
        one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            manifest = artifacts.get(*one)
        except NotFound:  # pruned: it has no age any more
            continue
        if one[0].startswith("raw/"):
            yield manifest.created_at
        ahead.extend(manifest.inputs.items())


def _canaries(artifacts: Artifacts, report: Mapping[str, Any]) -> list[Canary]:
    """The held-out questions that were found, a few of them, the same in every process."""
    scores, version = report.get("by_question", {}), report.get("judged", {}).get("sft_pairs")
    if not scores or not version:
        return []
    held = read_parts(SftPair, artifacts.parts(artifacts.get("sft_pairs", version), "sft_holdout"))
    known: dict[str, Canary] = {}
    for pair in islice(held, _PAIRS):
        key = fingerprint(pair.instruction, (pair.document_id,))
        if scores.get(key, {}).get("recall_at_5") == 1.0:
            known[key] = Canary(pair.instruction, pair.document_id)
    return [known[key] for key in sorted(known)[:_CANARIES]]


def _age(at: str) -> float:
    """Seconds since then."""
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
