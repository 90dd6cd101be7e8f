"""The life of a question: complete it from the conversation -> share or make the answer -> store -> done.

What an answer is made of is `pipeline`'s, and whether it is made anew `sharing`'s; here is who gets it. Each
question is one `Running` whose events any reader follows.

Degraded forms of this half, named in the answer's `degraded` and counted in the metrics:

    conversation  the language model did not complete the question in time: that is done by words
    history       the state server did not take the answer: it has no lineage later
"""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from alchemy.errors import ContractBroken, NotFound, Unavailable
from alchemy.retrieval.conversation import Turn, points_back, stand_alone
from serving.answer import (
    Answer,
    Counted,
    Done,
    Event,
    Failed,
    Question,
    Started,
    Status,
    Stopped,
    Token,
    no_release,
)
from serving.answers import AnswerRecord, Answers
from serving.making import Made
from serving.options import ServingOptions
from serving.people.access import Principal
from serving.people.sessions import Sessions
from serving.pipeline import Step
from serving.released import Follower, Lease, Live
from serving.running import Running
from serving.sharing import Sharing
from serving.usage import usage
from serving.watching.logs import answer_id
from serving.watching.metrics import Metrics
from serving.watching.tracing import note, span

log = logging.getLogger(__name__)

Completer = Callable[[str, Sequence[Turn]], Awaitable[str]]  # whatever it raises is a failure
Answered = Callable[[Principal, str, Answer], None]  # is told of every answer that was given

_KEPT_S = 60.0  # how long the events of a finished answer can still be read


@dataclass
class _Run:
    """One person's answer while it is made."""

    question: Question
    id: str = field(default_factory=lambda: f"ans-{secrets.token_hex(12)}")
    started: float = field(default_factory=time.monotonic)
    standalone: str | None = None
    asked: Question | None = None  # as it stands alone
    lacking: list[str] = field(default_factory=list)
    made: Made | None = None
    pieces_at: list[float] = field(default_factory=list)  # seconds since the question, of each token event
    outcome: str = "canceled"

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def degraded(self) -> list[str]:
        return list(dict.fromkeys([*(self.made.degraded if self.made else ()), *self.lacking]))

    @property
    def seconds(self) -> dict[str, float]:
        return (dict(self.made.seconds) if self.made else {}) | {"total": self.elapsed}


@dataclass(frozen=True)
class Underway:
    """An answer that is being made, or was a moment ago."""

    id: str
    asker: Principal
    running: Running[Event]

    def stop(self) -> None:
        """Ends it; whoever reads is told."""
        self.running.stop(Stopped(id=self.id))


class Coordinator:
    """Answers questions from whatever release serves when they arrive."""

    def __init__(
        self,
        follower: Follower,
        sharing: Sharing,
        answers: Answers,
        sessions: Sessions,
        metrics: Metrics,
        *,
        options: ServingOptions,
        answered: Answered = lambda *_: None,
        completer: Completer | None = None,
    ) -> None:
        self._follower = follower
        self._sharing = sharing
        self._answers = answers
        self._sessions = sessions
        self._metrics = metrics
        self._options = options
        self._answered = answered
        self._completer = completer
        self._underway: dict[str, Underway] = {}
        self._in_work: Counter[str] = Counter()  # by caller
        self._closing = False

    def start(self, question: Question, *, linger_s: float = 0.0) -> Underway:
        """Begins an answer; it goes on while somebody reads it, and `linger_s` longer.

        Raises:
            Unavailable: More questions are in work, of all or of this caller, than the options allow; or the
                service is stopping.
        """
        caller = question.asker.caller
        if self._closing:
            raise Unavailable("the service is stopping")
        if self._in_work.total() >= self._options.max_concurrent:
            raise Unavailable("too many questions at once; please try again in a moment")
        # Answers that were left go on for a moment, and a socket brings several: requests are not all.
        if question.asker.is_limited and self._in_work[caller] >= self._options.requests_at_once:
            raise Unavailable("too many of your questions are in work; please try again in a moment")
        run = _Run(question)
        self._in_work[caller] += 1
        self._metrics.in_flight.inc()
        running = Running(self._events(run), linger_s=linger_s)
        running.when_ended(lambda: self._ended(run))
        self._underway[run.id] = underway = Underway(run.id, question.asker, running)
        return underway

    def find(self, answer_id: str, asker: Principal) -> Underway | None:
        """The answer of that id, where the asker has one under way or just had."""
        underway = self._underway.get(answer_id)
        return underway if underway and underway.asker.owner == asker.owner else None

    async def answer(self, question: Question) -> Answer:
        """The whole answer at once. Raises Unavailable like `start`, ContractBroken on a fault of ours."""
        async with aclosing(self.start(question).running.read()) as events:
            async for _, event in events:
                if isinstance(event, Done):
                    return event.answer
                if isinstance(event, Failed):
                    raise ContractBroken(event.message)
        raise Unavailable("the service is stopping")

    async def close(self) -> None:
        """Stops what is under way and takes no more work."""
        self._closing = True
        underway = list(self._underway.values())
        for one in underway:
            one.running.stop()
        for one in underway:
            await one.running.settled()
        await self._sharing.close()

    async def _events(self, run: _Run) -> AsyncGenerator[Event, None]:
        lease = self._follower.lease()
        release = lease.live.id if lease else None
        answer_id.set(run.id)  # of this task and of what it starts
        try:
            with span("answer", {"gen_ai.operation.name": "chat"}), lease or nullcontext():
                yield Started(id=run.id, release=release)
                async with aclosing(self._steps(run, lease)) as steps:
                    async for step in steps:
                        if isinstance(step, Token):
                            run.pieces_at.append(run.elapsed)
                        yield self._now(step, run)
                answer = await self._store(run, lease.live if lease else None)
                note(
                    {
                        "gen_ai.response.id": answer.id,
                        "gen_ai.response.model": answer.finalist,
                        "gen_ai.data_source.id": release,
                        "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
                        "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
                    }
                )
                if run.asked:
                    self._sharing.keep(run.asked, answer)
                yield Counted(usage=answer.usage)
                run.outcome = "answered" if answer.answerable else "declined"
                self._answered(run.question.asker, run.question.text, answer)
                yield Done(answer=answer)
        except Exception:
            run.outcome = "failed"
            log.exception("answer failed", extra={"answer": run.id})
            yield Failed(id=run.id, message="the answer failed for a reason of ours; it is in the log")
        finally:
            self._account(run, release)

    async def _steps(self, run: _Run, lease: Lease | None) -> AsyncGenerator[Step, None]:
        """What is made for this question; leaves the result in `run.made`."""
        if lease is None:
            run.made = Made(no_release(run.question.text))
            yield Token(text=run.made.text)
            return
        text = await self._complete(run)
        run.asked = run.question.model_copy(update={"text": text, "turns": (), "session": None})
        async with aclosing(self._sharing.steps(run.asked, lease)) as items:
            async for item in items:
                if isinstance(item, Made):
                    run.made = item
                else:
                    yield item

    async def _complete(self, run: _Run) -> str:
        """The question as it stands alone; `run.standalone` where that differs from how it was asked."""
        question, turns = run.question.text, run.question.turns
        if not turns or not points_back(question):
            return question
        completed = stand_alone(question, turns)
        if self._completer:
            try:
                async with asyncio.timeout(self._options.rewrite_s):
                    completed = await self._completer(question, turns)
            except Exception as error:
                run.lacking.append("conversation")
                log.warning("question not completed", extra={"answer": run.id, "reason": repr(error)})
        run.standalone = completed if completed != question else None
        return completed

    def _now(self, step: Step, run: _Run) -> Step:
        """The step as this asker sees it: a shared one began before they asked."""
        return step.model_copy(update={"at": round(run.elapsed, 4)}) if isinstance(step, Status) else step

    async def _store(self, run: _Run, live: Live | None) -> Answer:
        answer = self._answer(run, live)
        asker = run.question.asker
        record = AnswerRecord(
            answer=answer,
            question=run.question.text,
            user=asker.name,
            tenant=asker.tenant,
            access=asker.access,
        )
        try:
            await self._answers.put(record)
            if session := run.question.session:
                await self._sessions.append(asker, session, run.question.text, answer)
        except NotFound:
            pass  # the conversation was deleted meanwhile, and stays so
        except Unavailable:
            run.lacking.append("history")
            return self._answer(run, live)
        return answer

    def _answer(self, run: _Run, live: Live | None) -> Answer:
        made = run.made
        if made is None:
            raise ContractBroken("the making of an answer ended without one")
        prompt = "\n".join([*(turn.content for turn in run.question.turns), run.question.text])
        return Answer(
            id=run.id,
            release=live.id if live else None,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            answer=made.text,
            answerable=made.answerable,
            finalist=made.finalist,
            citations=list(made.citations),
            unsupported=list(made.unsupported),
            removed=list(made.removed),
            intuition=made.intuition,
            standalone=run.standalone,
            session=run.question.session,
            cached=made.cached,
            cached_question=made.cached_question,
            degraded=run.degraded,
            filters=made.filters,
            dropped=made.dropped,
            usage=usage(prompt, made.text, live),
            seconds={name: round(s, 4) for name, s in run.seconds.items()},
        )

    def _ended(self, run: _Run) -> None:
        caller = run.question.asker.caller
        self._in_work[caller] -= 1
        if not self._in_work[caller]:
            del self._in_work[caller]
        self._metrics.in_flight.dec()
        # Not at once: whoever lost the connection just before the end reads the rest.
        asyncio.get_running_loop().call_later(_KEPT_S, self._underway.pop, run.id, None)

    def _account(self, run: _Run, release: str | None) -> None:
        """One log line and the counters of a question, however it ended."""
        self._metrics.answers.labels(run.outcome).inc()
        for feature in run.degraded:
            self._metrics.degraded.labels(feature).inc()
        self._metrics.spent(run.seconds)
        self._metrics.streamed(run.pieces_at)
        fields = {
            "answer": run.id,
            "release": release,
            "outcome": run.outcome,
            "degraded": run.degraded,
            "finalist": run.made and run.made.finalist,
            "citations": len(run.made.citations) if run.made else 0,
            "removed": run.made.removed if run.made else (),
            "seconds": {name: round(s, 4) for name, s in run.seconds.items()},
        }
        if self._options.log_questions:
            fields["question"] = run.question.text
        log.info("answer", extra=fields)
