"""Unusual ways of asking: what a window of one caller's requests looks like, and what of it stands out.

Signs, not proofs: an anomaly is counted, written to the audit log, and where the options say so slows its
caller down. It never blocks anybody. Windows are of ten minutes, sliding by the minute, and live in this
process; a caller's usual volume is that of their windows within the last day of activity.
"""

import re
import statistics
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from alchemy.text.instructions import is_for_the_model

Kind = Literal["volume", "denied", "extraction", "enumeration", "injection"]

_SLOT_S = 60
_SLOTS = 10
_USUAL = 144  # windows: a day
_MOST_CALLERS = 10_000
_MOST_DOCUMENTS = 1_000  # remembered of one minute

# From how many on, within a window.
_VOLUME, _VOLUME_FACTOR, _VOLUME_HISTORY = 120, 4, 6
_DENIED = 20
_DOCUMENTS = 100
_ENUMERATIONS = 5
_INJECTIONS = 3

_ENUMERATES = re.compile(
    r"""(?ix)
      \b(?:list|show|give|print|dump|export|enumerate|return)\b[^.?!\n]{0,30}
        \b(?:all|every(?:thing)?|each|entire|complete|full)\b
    | \b(?:next|page)\s+\d+\s+(?:documents?|issues?|pages?|records?|results?)\b
    | (?:列出|导出|显示|给出|打印)[^。？！\n]{0,10}(?:所有|全部|每一?[个条篇])
    """
)


@dataclass(frozen=True, slots=True)
class Window:
    """One caller's last ten minutes."""

    requests: int = 0
    usual: tuple[int, ...] = ()  # requests of their earlier windows that had any
    denied: int = 0  # refused by 401, 403 or 404
    documents: int = 0  # different ones that were cited to them
    enumerations: int = 0  # questions that ask for everything
    injections: int = 0  # questions that give orders to the model


@dataclass(frozen=True, slots=True)
class Anomaly:
    kind: Kind
    count: int


def assess(window: Window) -> list[Anomaly]:
    """What stands out in the window."""
    found: list[tuple[Kind, int, bool]] = [
        ("volume", window.requests, window.requests >= _VOLUME and _is_unusual(window)),
        ("denied", window.denied, window.denied >= _DENIED),
        ("extraction", window.documents, window.documents >= _DOCUMENTS),
        ("enumeration", window.enumerations, window.enumerations >= _ENUMERATIONS),
        ("injection", window.injections, window.injections >= _INJECTIONS),
    ]
    return [Anomaly(kind, count) for kind, count, stands_out in found if stands_out]


def enumerates(question: str) -> bool:
    """Whether the question asks for everything of a kind, as one does who copies a knowledge base."""
    return bool(_ENUMERATES.search(question))


@dataclass(slots=True)
class _Slot:
    minute: int
    requests: int = 0
    denied: int = 0
    enumerations: int = 0
    injections: int = 0
    documents: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _History:
    slots: deque[_Slot] = field(default_factory=deque)
    usual: deque[list[int]] = field(default_factory=lambda: deque(maxlen=_USUAL))  # [window, requests]
    raised: dict[Kind, int] = field(default_factory=dict)  # minute of the last time

    def slot(self, minute: int) -> _Slot:
        while self.slots and self.slots[0].minute <= minute - _SLOTS:
            old = self.slots.popleft()
            if not self.usual or self.usual[-1][0] != old.minute // _SLOTS:
                self.usual.append([old.minute // _SLOTS, 0])
            self.usual[-1][1] += old.requests
        if not self.slots or self.slots[-1].minute != minute:
            self.slots.append(_Slot(minute))
        return self.slots[-1]

    def window(self) -> Window:
        return Window(
            requests=sum(slot.requests for slot in self.slots),
            usual=tuple(requests for _, requests in self.usual),
            denied=sum(slot.denied for slot in self.slots),
            documents=len(set().union(*(slot.documents for slot in self.slots))),
            enumerations=sum(slot.enumerations for slot in self.slots),
            injections=sum(slot.injections for slot in self.slots),
        )


class Watch:
    """Keeps the windows of all callers, and tells `report` each anomaly once in ten minutes."""

    def __init__(
        self, report: Callable[[str, Anomaly], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._callers: OrderedDict[str, _History] = OrderedDict()

    def asked(self, caller: str) -> None:
        """A request came."""
        self._slot(caller).requests += 1
        self._look(caller)

    def denied(self, caller: str) -> None:
        """A request was for what the caller may not have."""
        self._slot(caller).denied += 1
        self._look(caller)

    def answered(self, caller: str, question: str, documents: Sequence[str]) -> None:
        """A question was answered from those documents."""
        slot = self._slot(caller)
        slot.enumerations += enumerates(question)
        slot.injections += is_for_the_model(question)
        if len(slot.documents) < _MOST_DOCUMENTS:
            slot.documents.update(documents)
        self._look(caller)

    def _slot(self, caller: str) -> _Slot:
        history = self._callers.setdefault(caller, _History())
        self._callers.move_to_end(caller)
        if len(self._callers) > _MOST_CALLERS:
            self._callers.popitem(last=False)
        return history.slot(self._minute)

    def _look(self, caller: str) -> None:
        history, minute = self._callers[caller], self._minute
        for anomaly in assess(history.window()):
            if minute - history.raised.get(anomaly.kind, -_SLOTS) >= _SLOTS:
                history.raised[anomaly.kind] = minute
                self._report(caller, anomaly)

    @property
    def _minute(self) -> int:
        return int(self._clock() // _SLOT_S)


def _is_unusual(window: Window) -> bool:
    known = len(window.usual) >= _VOLUME_HISTORY
    return known and window.requests > _VOLUME_FACTOR * statistics.median(window.usual)
