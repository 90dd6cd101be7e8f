"""The record of one answer while it is made (`Making`), and when it is (`Made`)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from alchemy.quoting import Citation
from serving.answer import Filters, Intuition, Stage, Status, TextRange
from serving.fusing import Fusion
from serving.watching.tracing import note, span


@dataclass(frozen=True)
class Made:
    """An answer's content: everything that does not depend on who asked and when."""

    text: str
    answerable: bool = False
    finalist: str = "none"
    citations: tuple[Citation, ...] = ()
    unsupported: tuple[TextRange, ...] = ()
    removed: tuple[str, ...] = ()
    intuition: Intuition | None = None
    degraded: tuple[str, ...] = ()
    filters: Filters = field(default_factory=Filters)
    dropped: Filters = field(default_factory=Filters)
    seconds: dict[str, float] = field(default_factory=dict)
    cached: Literal["exact", "semantic"] | None = None  # where it was made before
    cached_question: str | None = None  # for this question


@dataclass
class Making:
    """What is known of an answer so far."""

    started: float = field(default_factory=time.monotonic)
    degraded: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    dropped: Filters = field(default_factory=Filters)
    intuition: Intuition | None = None

    def status(self, stage: Stage, state: str) -> Status:
        return Status.model_validate(
            {"stage": stage, "state": state, "at": round(time.monotonic() - self.started, 4)}
        )

    def lacks(self, feature: str) -> None:
        """Names a feature that the answer goes without."""
        note({"alchemy.degraded": feature})
        if feature not in self.degraded:
            self.degraded.append(feature)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Notes how long the stage took, and traces it."""
        began = time.monotonic()
        try:
            with span(stage, {}):
                yield
        finally:
            self.seconds[stage] = time.monotonic() - began

    def declined(self, text: str) -> Made:
        """An answer that says why there is none."""
        return Made(
            text,
            degraded=tuple(self.degraded),
            filters=self.filters,
            dropped=self.dropped,
            seconds=self.seconds,
        )

    def made(self, fusion: Fusion) -> Made:
        """The answer that the fusion wrote."""
        if fusion.degraded:
            self.lacks(fusion.degraded)
        if fusion.fell_back:
            self.lacks("fallback")
        return Made(
            fusion.text,
            answerable=fusion.answerable,
            finalist=fusion.finalist,
            citations=fusion.citations,
            unsupported=tuple(TextRange(start=s.start, end=s.end) for s in fusion.unsupported),
            removed=tuple(fusion.removed),
            intuition=self.intuition if fusion.answerable else None,
            degraded=tuple(self.degraded),
            filters=self.filters,
            dropped=self.dropped,
            seconds=self.seconds | {"waiting": fusion.waited_s},
        )
