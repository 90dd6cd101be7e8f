"""Writing the answer from the passages: by the language model where there is one, else by exact quotes.

What the model writes is filtered as it comes (`output`), its citations are looked up, and its sentences that
no cited passage supports are marked. Where it fails or cites nothing, quotes follow what it wrote.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from alchemy.errors import Unavailable
from alchemy.quoting import Citation, checked, cite, extract
from alchemy.retrieval.search import Passage
from alchemy.support import TextSpan, unsupported
from alchemy.text.language import is_chinese
from alchemy.text.sanitize import Sanitizer
from serving.answer import refusal
from serving.finalist import LanguageModel
from serving.output import OutputFilter
from serving.watching.tracing import span

log = logging.getLogger(__name__)

T = TypeVar("T")

_SHORT = 8000  # characters of passages, which take a few milliseconds


@dataclass(frozen=True)
class Finalists:
    """Who writes, and what their words are filtered with."""

    models: tuple[LanguageModel, ...]  # asked in turn, where the one before wrote nothing
    sanitizer: Sanitizer


@dataclass
class Fusion:
    """One answer's text; complete when `write` is through."""

    question: str
    passages: Sequence[Passage]
    guess: str | None  # the intuition
    finalists: Finalists
    text: str = ""
    answerable: bool = True
    finalist: str = "extractive"
    citations: tuple[Citation, ...] = ()
    unsupported: tuple[TextSpan, ...] = ()
    removed: list[str] = field(default_factory=list)  # kinds of what was filtered out
    degraded: str | None = None  # the feature that was missing
    fell_back: bool = False  # the first model wrote nothing, another did
    waited_s: float = 0.0  # for the language model

    async def write(self) -> AsyncGenerator[str, None]:
        """The pieces of the text as they come; closing it ends the model's call."""
        for model in self.finalists.models:
            self.degraded = None
            async with aclosing(self._written(model)) as pieces:
                async for piece in pieces:
                    self.text += piece
                    yield piece
            if self.text:
                self.fell_back = model is not self.finalists.models[0]
                break
        if self.finalists.models:
            await self._apart(self._judge)
            if not self.degraded:
                return
            if self.text:
                seam = _broke_off(self.question, self.degraded == "finalist")
                self.text += seam
                yield seam
        if quotes := await self._apart(self._quoted):
            self.text += quotes
            yield quotes

    async def _apart(self, work: Callable[[], T]) -> T:
        """What `work` gives, which reads all passages; in a thread, unless it is sooner done here."""
        if sum(len(passage.text) for passage in self.passages) <= _SHORT:
            return work()
        return await asyncio.to_thread(work)

    async def _written(self, model: LanguageModel) -> AsyncGenerator[str, None]:
        """What the model writes, filtered; `degraded` where it failed."""
        self.finalist = model.name
        call = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model.name}
        filtering = OutputFilter(self.finalists.sanitizer, self.passages, self.removed)
        try:
            tokens = model.stream(self.question, self.passages, self.guess)
            with span(f"chat {model.name}", call, calls_out=True):
                async with aclosing(tokens), aclosing(self._awaited(tokens)) as awaited:
                    async for piece in filtering.stream(checked(awaited, len(self.passages))):
                        yield piece
        except Unavailable as error:
            self.degraded = "finalist"
            log.warning("finalist failed", extra={"reason": str(error)})

    def _judge(self) -> None:
        """Whether what the model wrote is a refusal, cites anything, and where nothing supports it."""
        self.citations = cite(self.text, self.passages)
        if not self.citations and refusal(self.question) in self.text:
            self.answerable, self.degraded = False, None
            return
        self.unsupported = unsupported(self.text, self.passages)
        if not self.citations:
            self.degraded = self.degraded or "citations"

    def _quoted(self) -> str:
        """The text of the quotes, which join the citations there are; a refusal where there is nothing."""
        draft = extract(self.question, self.passages)
        self.finalist = self.finalist if self.citations else "extractive"
        known = {(citation.number, citation.quote) for citation in self.citations}
        self.citations += tuple(c for c in draft.citations if (c.number, c.quote) not in known)
        if draft.text or self.citations:
            return draft.text
        self.answerable = False
        return refusal(self.question)

    async def _awaited(self, tokens: AsyncIterator[str]) -> AsyncGenerator[str, None]:
        """The tokens; the time until each is the model's."""
        while True:
            began = time.monotonic()
            try:
                token = await anext(tokens, None)
            finally:
                self.waited_s += time.monotonic() - began
            if token is None:
                return
            yield token


def _broke_off(question: str, failed: bool) -> str:
    """The visible seam between what the model wrote and the quotes that follow."""
    if is_chinese(question):
        return "\n\n（模型中断，以下为原文引用）\n" if failed else "\n\n（以上未注明出处，以下为原文引用）\n"
    if failed:
        return "\n\n(The model broke off; quotes follow.)\n"
    return "\n\n(The above cites no source; quotes follow.)\n"
