"""How a question becomes an answer: [rewrite -> retrieve || intuition] -> fuse -> stream -> store.

Each step has a deadline and a degraded form, named in the answer's `degraded` and counted in the metrics:

    rewrite     no other words for the question came in time: its own words are searched
    retrieval   the search failed or was too slow: the question is declined, saying so
    intuition   the adapter failed or was too slow: the answer goes without
    finalist    the language model failed: what it wrote so far, if anything, and then quotes
    citations   the language model cited nothing that holds: quotes follow its text
    history     the state server did not take the answer: it has no lineage later

Closing the event stream (the client went away) cancels all work of the question.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from alchemy.errors import ContractBroken, Unavailable
from alchemy.quoting import Citation, checked, cite, extract
from alchemy.retrieval.rewrite import Rewrite
from alchemy.retrieval.search import Passage, SearchResult
from alchemy.settings import SearchOptions
from alchemy.text.language import is_chinese
from serving.answer import (
    Answer,
    Cited,
    Done,
    Event,
    Failed,
    Filters,
    Intuition,
    Question,
    Source,
    Sources,
    Stage,
    Started,
    Status,
    Token,
    no_release,
    no_retrieval,
    refusal,
)
from serving.finalist import LanguageModel
from serving.metrics import Metrics
from serving.options import ServingOptions
from serving.released import Follower, Lease
from serving.state import Answers

log = logging.getLogger(__name__)


@dataclass
class _Run:
    """What is known of one answer while it is made."""

    question: Question
    id: str = field(default_factory=lambda: f"ans-{secrets.token_hex(12)}")
    started: float = field(default_factory=time.monotonic)
    degraded: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    text: str = ""
    answerable: bool = False
    filters: Filters = field(default_factory=Filters)
    dropped: Filters = field(default_factory=Filters)
    finalist: str = "none"
    citations: tuple[Citation, ...] = ()
    intuition: Intuition | None = None
    outcome: str = "canceled"

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def status(self, stage: Stage, state: str) -> Status:
        return Status.model_validate({"stage": stage, "state": state, "at": round(self.elapsed, 4)})

    def lacks(self, feature: str) -> None:
        if feature not in self.degraded:
            self.degraded.append(feature)


class Coordinator:
    """Answers questions from whatever release serves when they arrive."""

    def __init__(
        self,
        follower: Follower,
        answers: Answers,
        metrics: Metrics,
        *,
        options: ServingOptions,
        search: SearchOptions,
        model: LanguageModel | None = None,
        rewriter: Callable[[str], Rewrite] | None = None,
    ) -> None:
        self._follower = follower
        self._answers = answers
        self._metrics = metrics
        self._options = options
        self._search = search
        self._model = model
        self._rewriter = rewriter
        self._rewritings = ThreadPoolExecutor(options.threads, "rewrite")
        self._searches = ThreadPoolExecutor(options.threads, "search")
        self._in_work = 0

    def admit(self) -> None:
        """Raises Unavailable when more questions are in work than the options allow."""
        if self._in_work >= self._options.max_concurrent:
            raise Unavailable("too many questions at once; please try again in a moment")

    async def answer(self, question: Question) -> Answer:
        """The whole answer at once. Raises ContractBroken on a fault of ours."""
        async with aclosing(self.events(question)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.answer
                if isinstance(event, Failed):
                    raise ContractBroken(event.message)
        raise AssertionError("an event stream ends with Done or Failed")

    async def events(self, question: Question) -> AsyncGenerator[Event, None]:
        """The answer as it is made. Close the generator to cancel it (`contextlib.aclosing`)."""
        run, lease = _Run(question), self._follower.lease()
        self._in_work += 1
        self._metrics.in_flight.inc()
        try:
            with lease or nullcontext():
                yield Started(id=run.id, release=lease.live.id if lease else None)
                async with aclosing(self._steps(run, lease)) as steps:
                    async for event in steps:
                        yield event
                answer = await self._store(run, lease.live.id if lease else None)
                run.outcome = "answered" if run.answerable else "declined"
                yield Done(answer=answer)
        except Exception:
            run.outcome = "failed"
            log.exception("answer failed", extra={"answer": run.id})
            yield Failed(id=run.id, message="the answer failed for a reason of ours; it is in the log")
        finally:
            self._in_work -= 1
            self._metrics.in_flight.dec()
            self._account(run, lease)

    def close(self) -> None:
        """Takes no more work. Threads that are busy end with their own deadline."""
        self._rewritings.shutdown(wait=False, cancel_futures=True)
        self._searches.shutdown(wait=False, cancel_futures=True)

    async def _steps(self, run: _Run, lease: Lease | None) -> AsyncGenerator[Event, None]:
        if lease is None:
            run.text = no_release(run.question.text)
            yield Token(text=run.text)
            return
        consulting = self._consult(run, lease)
        try:
            rewrite = None
            if self._rewriter:
                yield run.status("Rewriting", "start")
                rewrite = await self._rewrite(run, self._rewriter)
                yield run.status("Rewriting", "finish")
            yield run.status("Retrieving", "start")
            if consulting:
                yield run.status("Consulting", "start")
            found = await self._retrieve(run, lease, rewrite)
            yield run.status("Retrieving", "finish")
            if found is None or not found.answerable or not found.passages:
                run.text = (no_retrieval if found is None else refusal)(run.question.text)
                yield Token(text=run.text)
                return
            yield Sources(sources=[_source(n, p) for n, p in enumerate(found.passages, 1)])
            if consulting:
                run.intuition = await self._heard(run, consulting)
                yield run.status("Consulting", "finish")
            yield run.status("Fusing", "start")
            began = run.elapsed
            async with aclosing(self._fuse(run, found.passages)) as pieces:
                async for piece in pieces:
                    if not run.text:
                        self._metrics.first_token.observe(run.elapsed)
                    run.text += piece
                    yield Token(text=piece)
            run.seconds["fusing"] = run.elapsed - began
            yield run.status("Fusing", "finish")
            for citation in run.citations:
                yield Cited(citation=citation)
        finally:
            if consulting:
                consulting.cancel()

    async def _rewrite(self, run: _Run, rewriter: Callable[[str], Rewrite]) -> Rewrite | None:
        """The question in other words. One that comes too late is in the model's cache the next time."""
        try:
            async with asyncio.timeout(self._options.rewrite_s):
                working = self._rewritings.submit(rewriter, run.question.text)
                return await asyncio.wrap_future(working)
        except Exception as error:
            run.lacks("rewrite")
            log.warning("no rewriting", extra={"answer": run.id, "reason": repr(error)})
            return None
        finally:
            run.seconds["rewriting"] = run.elapsed

    async def _retrieve(self, run: _Run, lease: Lease, rewrite: Rewrite | None) -> SearchResult | None:
        options = self._search
        if run.question.top_k:
            options = options.model_copy(update={"top_k": run.question.top_k})
        try:
            async with asyncio.timeout(self._options.search_s):
                asked = (run.question.text, options, run.question.filters, rewrite)
                result = await lease.submit(self._searches, lease.live.search, *asked)
        except Exception as error:
            run.lacks("retrieval")
            log.warning("retrieval failed", exc_info=error, extra={"answer": run.id})
            return None
        finally:
            run.seconds["retrieving"] = run.elapsed
        run.filters, run.dropped = Filters.of(result.filters), Filters.of(result.dropped)
        self._metrics.relevance.observe(min(max(result.relevance, 0.0), 1.0))
        return result

    def _consult(self, run: _Run, lease: Lease) -> asyncio.Task[Intuition] | None:
        """Starts the adapter; None where it is off or there is none."""
        adapters = lease.live.adapters
        if not (self._options.intuition and run.question.intuition):
            return None
        if any(problem.startswith("intuition") for problem in lease.live.problems):
            run.lacks("intuition")
        name = run.question.adapter or next(iter(adapters), "")
        if name not in adapters:
            if run.question.adapter:  # a release without it came in since the name was checked
                run.lacks("intuition")
            return None

        async def speak() -> Intuition:
            text = await adapters[name](
                [{"role": "user", "content": run.question.text}],
                max_new_tokens=self._options.intuition_tokens,
                deadline_s=self._options.search_s + self._options.intuition_grace_s,
            )
            return Intuition(text=text.strip(), adapter=name)

        consulting = asyncio.create_task(speak())
        # A declined question never asks how it went: looking at the error here keeps asyncio quiet.
        consulting.add_done_callback(lambda done: done.cancelled() or done.exception())
        return consulting

    async def _heard(self, run: _Run, consulting: asyncio.Task[Intuition]) -> Intuition | None:
        """What the adapter said, if it is through within its grace."""
        try:
            async with asyncio.timeout(self._options.intuition_grace_s):
                intuition = await consulting
        except Exception as error:
            run.lacks("intuition")
            log.warning("no intuition", extra={"answer": run.id, "reason": repr(error)})
            return None
        finally:
            run.seconds["consulting"] = run.elapsed
        return intuition if intuition.text else None

    async def _fuse(self, run: _Run, passages: Sequence[Passage]) -> AsyncGenerator[str, None]:
        """Writes the answer; its pieces are what the client sees."""
        run.answerable = True
        if self._model is not None:
            written = ""
            run.finalist = self._model.name
            try:
                guess = run.intuition.text if run.intuition else None
                async with aclosing(self._model.stream(run.question.text, passages, guess)) as tokens:
                    async for piece in checked(tokens, len(passages)):
                        written += piece
                        yield piece
                run.citations = cite(written, passages)
                if run.citations:
                    return
                if refusal(run.question.text) in written:
                    run.answerable, run.intuition = False, None
                    return
                run.lacks("citations")
            except Unavailable as error:
                run.citations = cite(written, passages)
                run.lacks("finalist")
                log.warning("finalist failed", extra={"answer": run.id, "reason": str(error)})
            if written:
                yield _broke_off(run.question.text, "finalist" in run.degraded)
        draft = extract(run.question.text, passages)
        run.finalist = run.finalist if run.citations else "extractive"
        known = {(citation.number, citation.quote) for citation in run.citations}
        run.citations += tuple(c for c in draft.citations if (c.number, c.quote) not in known)
        if draft.text:
            yield draft.text
        elif not run.citations:
            run.answerable, run.intuition = False, None
            yield refusal(run.question.text)

    async def _store(self, run: _Run, release: str | None) -> Answer:
        began = run.elapsed
        answer = self._answer(run, release)
        try:
            await self._answers.put(answer)
        except Unavailable:
            run.lacks("history")
        run.seconds["storing"] = run.elapsed - began
        return self._answer(run, release)

    def _answer(self, run: _Run, release: str | None) -> Answer:
        return Answer(
            id=run.id,
            release=release,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            answer=run.text,
            answerable=run.answerable,
            finalist=run.finalist,
            citations=list(run.citations),
            intuition=run.intuition if run.answerable else None,
            degraded=list(run.degraded),
            filters=run.filters,
            dropped=run.dropped,
            seconds={name: round(s, 4) for name, s in (run.seconds | {"total": run.elapsed}).items()},
        )

    def _account(self, run: _Run, lease: Lease | None) -> None:
        """One log line and the counters of a question, however it ended."""
        self._metrics.answers.labels(run.outcome).inc()
        for feature in run.degraded:
            self._metrics.degraded.labels(feature).inc()
        for stage, seconds in run.seconds.items():
            self._metrics.stage.labels(stage).observe(seconds)
        fields = {
            "answer": run.id,
            "release": lease.live.id if lease else None,
            "outcome": run.outcome,
            "degraded": run.degraded,
            "finalist": run.finalist,
            "citations": len(run.citations),
            "seconds": {name: round(s, 4) for name, s in (run.seconds | {"total": run.elapsed}).items()},
        }
        if self._options.log_questions:
            fields["question"] = run.question.text
        log.info("answer", extra=fields)


def _source(number: int, passage: Passage) -> Source:
    chunk = passage.chunk
    return Source(
        number=number,
        document_id=chunk.document_id,
        title=chunk.title,
        source=chunk.source,
        url=chunk.url,
        score=round(float(passage.score), 4),
    )


def _broke_off(question: str, failed: bool) -> str:
    """The visible seam between what the model wrote and the quotes that follow."""
    if is_chinese(question):
        return "\n\n（模型中断，以下为原文引用）\n" if failed else "\n\n（以上未注明出处，以下为原文引用）\n"
    if failed:
        return "\n\n(The model broke off; quotes follow.)\n"
    return "\n\n(The above cites no source; quotes follow.)\n"
