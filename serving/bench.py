"""Load on a running service, as people make it: `alchemy bench`.

Users ask, read the stream, and ask again (closed loop); or questions arrive at a rate whether earlier ones
are answered or not (open loop). In an open loop a time is counted from when the question should have been
sent: a service that stops answering for a second is charged for everybody who would have asked meanwhile,
which a closed loop hides ("coordinated omission", Tene 2013).

Times are in seconds. Time to first token is that of the first piece of text, time per output token the mean
pause after it. Goodput is the share of all questions that got their whole answer within the objective.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from alchemy.errors import BadInput, Unavailable

QUESTIONS = (
    "How often does the gateway retry a failed delivery?",
    "Which alert is raised when a battery is low?",
    "Who approves a change of the temperature threshold?",
    "What has changed in the last release?",
    "Why was the import job rewritten?",
    "Where is the configuration of the scheduler documented?",
    "How is a lost connection to the broker handled?",
    "Which issues mention a memory leak?",
    "How many days of vacation does an employee have?",
    "网关重试几次？",
    "仓库的温度阈值是多少？",
    "How do I roll back a release?",
)
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to send."""

    users: int = 5
    requests: int = 10  # of each user
    rate: float | None = None  # questions a second, arriving at random; None: a closed loop
    zipf: float = 1.0  # exponent of how unevenly questions repeat; 0: all alike
    cancels: float = 0.0  # share of readers who leave in the middle of the stream
    slo_s: float = 2.0  # objective for a whole answer
    seed: int = 17


@dataclass(slots=True)
class Outcome:
    """How one question went."""

    kind: str = "answered"  # or left, or the kind of error
    seconds: float = 0.0
    first_token_s: float | None = None
    tokens: int = 0
    last_token_s: float = 0.0
    cached: bool = False
    mixed: bool = False  # began with one release and ended with another
    degraded: tuple[str, ...] = ()

    @property
    def per_token_s(self) -> float | None:
        """The mean pause between two pieces of text."""
        if self.first_token_s is None or self.tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Report:
    """What `alchemy bench` prints. Of times: p50, p95, p99, max."""

    questions: int
    answered: int
    left: int
    errors: dict[str, int]
    seconds: float
    requests_per_s: float
    goodput: float
    slo_s: float
    latency: dict[str, float]
    first_token: dict[str, float]
    per_token: dict[str, float]
    cached: int
    degraded: dict[str, int]
    mixed: int
    swaps: int = 0


@dataclass(slots=True)
class _Tally:
    outcomes: list[Outcome] = field(default_factory=list)
    swaps: int = 0


Swap = Callable[[int], Awaitable[None]]


async def bench(
    http: Any, questions: Sequence[str], load: Load, *, swap: Swap | None = None, swaps: int = 0
) -> Report:
    """Sends the load by `http`, an httpx.AsyncClient whose base URL is the service.

    `swap` is awaited `swaps` times, evenly spread over the questions, one after the other. Raises
    Unavailable when no question is answered.
    """
    clock, tally = asyncio.get_running_loop().time, _Tally()
    picked = pick(questions, load)
    every = max(len(picked) // (swaps + 1), 1)
    swapping: set[asyncio.Task[None]] = set()
    turn = asyncio.Lock()
    leaving = np.random.default_rng(load.seed + 1).random(len(picked)) < load.cancels

    async def swap_in_turn(wanted: Swap, number: int) -> None:
        async with turn:
            await wanted(number)

    async def one(number: int, due: float | None) -> None:
        outcome = await ask(http, picked[number], due or clock(), leaves=bool(leaving[number]))
        tally.outcomes.append(outcome)
        done = len(tally.outcomes)
        if swap and done % every == 0 and tally.swaps < swaps:
            tally.swaps += 1
            swapping.add(asyncio.create_task(swap_in_turn(swap, tally.swaps)))

    began = clock()
    if load.rate:
        await _arriving(one, len(picked), load, began)
    else:
        ahead = iter(range(len(picked)))

        async def user() -> None:
            for number in ahead:
                await one(number, None)

        await asyncio.gather(*(user() for _ in range(load.users)))
    seconds = clock() - began
    await asyncio.gather(*swapping)
    report = summarize(tally.outcomes, seconds, load.slo_s, tally.swaps)
    if not report.answered and not report.left:
        raise Unavailable(f"no question was answered: {report.errors}")
    return report


def pick(questions: Sequence[str], load: Load) -> list[str]:
    """What is asked, in order: the nth question comes up in proportion to 1 / n^zipf. Raises BadInput."""
    if not questions:
        raise BadInput("there are no questions to ask")
    weights = np.arange(1, len(questions) + 1) ** -load.zipf
    count, random = load.users * load.requests, np.random.default_rng(load.seed)
    return [questions[n] for n in random.choice(len(questions), count, p=weights / weights.sum())]


async def ask(http: Any, question: str, due: float, *, leaves: bool = False) -> Outcome:
    """One question by streaming chat, timed from `due`, a time of the event loop."""
    clock, outcome, release = asyncio.get_running_loop().time, Outcome("no end"), None
    try:
        body = {"question": question, "stream": True}
        async with http.stream("POST", "/api/chat", json=body, timeout=_TIMEOUT_S) as response:
            if response.status_code != 200:
                outcome.kind = f"status {response.status_code}"
            else:
                async with aclosing(_events(response)) as events:
                    async for name, data in events:
                        if name == "started":
                            release = data["release"]
                        elif name == "token":
                            outcome.tokens += 1
                            outcome.last_token_s = clock() - due
                            outcome.first_token_s = outcome.first_token_s or outcome.last_token_s
                            if leaves:
                                outcome.kind = "left"
                                break
                        elif name == "done":
                            answer = data["answer"]
                            outcome.kind = "answered"
                            outcome.mixed = answer["release"] != release
                            outcome.cached = bool(answer.get("cached"))
                            outcome.degraded = tuple(answer["degraded"])
                        elif name == "error":
                            outcome.kind = "error event"
    except Exception as error:  # httpx' kinds; that module is imported by who makes the client
        outcome.kind = type(error).__name__
    outcome.seconds = clock() - due
    return outcome


def summarize(outcomes: Sequence[Outcome], seconds: float, slo_s: float, swaps: int = 0) -> Report:
    """The figures of a run that took so many seconds."""
    answered = [one for one in outcomes if one.kind == "answered"]
    left = sum(one.kind == "left" for one in outcomes)
    errors = Counter(one.kind for one in outcomes if one.kind not in ("answered", "left"))
    good = sum(one.seconds <= slo_s for one in answered)
    asked = len(outcomes) - left
    return Report(
        questions=len(outcomes),
        answered=len(answered),
        left=left,
        errors=dict(errors),
        seconds=seconds,
        requests_per_s=len(outcomes) / seconds if seconds else 0.0,
        goodput=good / asked if asked else 0.0,
        slo_s=slo_s,
        latency=percentiles([one.seconds for one in answered]),
        first_token=percentiles([s for one in outcomes if (s := one.first_token_s) is not None]),
        per_token=percentiles([s for one in answered if (s := one.per_token_s) is not None]),
        cached=sum(one.cached for one in answered),
        degraded=dict(Counter(feature for one in answered for feature in one.degraded)),
        mixed=sum(one.mixed for one in answered),
        swaps=swaps,
    )


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 (nearest rank: a time that was measured) and max; empty without values."""
    if not values:
        return {}
    ranked = sorted(values)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: ranked[math.ceil(share * len(ranked)) - 1] for name, share in shares.items()}


async def _arriving(
    one: Callable[[int, float], Coroutine[Any, Any, None]], count: int, load: Load, began: float
) -> None:
    """Questions at random moments (a Poisson process), each sent when it is due, whatever was answered."""
    clock, asking = asyncio.get_running_loop().time, []
    pauses = np.random.default_rng(load.seed + 2).exponential(1 / (load.rate or 1.0), count)
    for number, due in enumerate((began + pauses.cumsum()).tolist()):
        await asyncio.sleep(max(due - clock(), 0))
        asking.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*asking)


async def _events(response: Any) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, orjson.loads(line.removeprefix("data: "))
