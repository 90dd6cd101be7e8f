import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.options import ServingOptions
from serving.people.access import ANYONE, NOBODY, OPERATOR, Principal
from serving.people.limits import Limits, TooManyAtOnce, Verdict, take
from serving.state import State
from tests.serving.conftest import Valkey

GAPS = st.lists(st.floats(0, 40), min_size=1, max_size=60)


@given(GAPS, st.integers(1, 20))
def test_in_no_minute_are_more_than_twice_the_limit_let_through_and_at_once_no_more_than_the_limit(
    gaps: list[float], limit: int
) -> None:
    until, now, passed = 0.0, 0.0, []
    for gap in gaps:
        now += gap
        until, verdict = take(until, now, limit)
        if verdict.allowed:
            passed.append(now)
    for start in passed:
        assert sum(start <= each < start + 60 for each in passed) <= 2 * limit
    assert max(passed.count(each) for each in passed) <= limit


@given(GAPS, st.integers(1, 20))
def test_who_waits_as_long_as_they_are_told_is_let_through(gaps: list[float], limit: int) -> None:
    until, now = 0.0, 0.0
    for gap in gaps:
        now += gap
        until, verdict = take(until, now, limit)
        told = verdict.headers
        assert verdict.allowed == ("Retry-After" not in told)
        if not verdict.allowed:
            now += int(told["Retry-After"])
            until, verdict = take(until, now, limit)
            assert verdict.allowed


def test_a_caller_who_was_idle_has_the_whole_limit_at_once() -> None:
    until, verdicts = 0.0, []
    for _ in range(6):
        until, verdict = take(until, 1000.0, 5)
        verdicts.append(verdict)
    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False]
    assert [verdict.remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0]
    assert verdicts[0].headers == {
        "RateLimit-Policy": '"requests";q=5;w=60',
        "RateLimit": '"requests";r=4;t=12',
    }
    assert verdicts[-1].headers["Retry-After"] == "12"


@pytest.fixture(params=["server", "alone"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a real server, and of none: the rate holds either way."""
    if request.param == "server":
        yield request.getfixturevalue("valkey").url
    else:
        yield "redis://127.0.0.1:1/0"


def verdicts(
    url: str, options: ServingOptions, *callers: Principal, tighten: str = ""
) -> list[Verdict | None]:
    async def ask() -> list[Verdict | None]:
        state = State(url, deadline_s=10)
        limits = Limits(state, options)
        if tighten:
            limits.tighten(tighten, 60)
        try:
            return [await limits.take(caller) for caller in callers]
        finally:
            await state.close()

    return asyncio.run(ask())


def allowed(found: list[Verdict | None]) -> list[bool]:
    return [verdict is None or verdict.allowed for verdict in found]


def test_each_caller_has_a_rate_of_their_own(url: str) -> None:
    options = ServingOptions(requests_per_minute=2, program_requests_per_minute=4)
    ann, program = Principal("ann"), Principal("ann", via="key", credential="1")
    assert allowed(verdicts(url, options, *[ann] * 3)) == [True, True, False]
    assert allowed(verdicts(url, options, *[program] * 5)) == [True] * 4 + [False]
    elsewhere = Principal("ann", tenant="other")
    assert allowed(verdicts(url, options, elsewhere, elsewhere, elsewhere)) == [True, True, False]


def test_the_operator_and_an_open_service_have_no_rate(url: str) -> None:
    options = ServingOptions(requests_per_minute=1)
    assert verdicts(url, options, *[OPERATOR] * 5, *[ANYONE] * 5) == [None] * 10


def test_who_is_slowed_down_has_a_quarter(url: str) -> None:
    options = ServingOptions(requests_per_minute=8)
    eve, ann = Principal("eve"), Principal("ann")
    slowed = verdicts(url, options, *[eve] * 3, *[ann] * 3, tighten=eve.caller)
    assert allowed(slowed) == [True, True, False, True, True, True]


def test_two_replicas_share_one_rate(valkey: Valkey) -> None:
    options, ann = ServingOptions(requests_per_minute=3), Principal("ann")
    assert allowed(verdicts(valkey.url, options, ann, ann)) == [True, True]
    assert allowed(verdicts(valkey.url, options, ann, ann)) == [True, False]


def test_places_are_one_callers_own_and_probes_and_pages_take_none() -> None:
    limits = Limits(State("redis://127.0.0.1:1/0", deadline_s=1), ServingOptions(requests_at_once=2))
    ann, bob = Principal("ann"), Principal("bob")
    with ExitStack() as stack:
        for principal in (ann, ann, bob, *[NOBODY] * 50, *[OPERATOR] * 50):
            stack.enter_context(limits.place(principal))
        with pytest.raises(TooManyAtOnce):
            stack.enter_context(limits.place(ann))
        stack.enter_context(limits.place(bob))
    with limits.place(ann), limits.place(ann):
        pass
