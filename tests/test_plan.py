"""The pure plan of the raw sensors: what a change asks for, as table tests and properties."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensors.plan import Seen, plan

A, A2, B = Seen("raw/git/a", 3, "x"), Seen("raw/git/a", 3, "y"), Seen("raw/git/b", 1, "z")


def after(*listings: dict[str, list[Seen]]) -> str | None:
    cursor = None
    for listing in listings:
        cursor = plan(listing, cursor).cursor
    return cursor


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ([], {"git": []}, None),
        ([], {"git": [A]}, ("git",)),
        ([{"git": [A]}], {"git": [A]}, None),
        ([{"git": [A]}], {"git": [A2]}, ("git",)),
        ([{"git": [A]}], {"git": [A, B]}, ("git",)),
        ([{"git": [A, B]}], {"git": [B, A]}, None),
        ([{"git": [A, B]}], {"git": [A]}, ("git",)),
        ([{"git": [A]}], {"git": []}, ("git",)),
        ([{"git": [A], "jira": [B]}], {"git": [A2], "jira": []}, ("git", "jira")),
    ],
    ids=["empty", "first", "same", "content", "added", "order", "removed", "emptied", "two sources"],
)
def test_a_request_is_made_exactly_when_content_changed(
    before: list[dict[str, list[Seen]]], now: dict[str, list[Seen]], changed: tuple[str, ...] | None
) -> None:
    request = plan(now, after(*before)).request
    assert (request.sources if request else None) == changed


def test_the_same_tick_evaluated_twice_asks_for_the_same_run() -> None:
    cursor = after({"git": [A]})
    assert plan({"git": [A2]}, cursor) == plan({"git": [A2]}, cursor)


def test_content_that_returns_to_an_earlier_state_is_a_new_run() -> None:
    first = plan({"git": [A]}, None)
    second = plan({"git": [A2]}, first.cursor)
    third = plan({"git": [A]}, second.cursor)
    keys = [one.request.run_key for one in (first, second, third) if one.request]
    assert len(set(keys)) == 3


def test_the_cursor_does_not_grow_with_the_objects() -> None:
    many = [Seen(f"raw/git/{number}", number, "e") for number in range(10_000)]
    cursor = plan({"git": many}, None).cursor
    assert len(cursor) < 200
    assert "raw/git" not in cursor


def test_a_source_that_the_listing_leaves_out_stays_as_it_was() -> None:
    cursor = after({"git": [A], "jira": [B]})
    assert plan({"git": [A]}, cursor).request is None
    assert plan({"jira": [B]}, cursor).request is None


def test_a_foreign_cursor_is_an_error_and_not_a_fresh_start() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        plan({"git": [A]}, "not json")


seen = st.builds(Seen, st.sampled_from(["a", "b", "c"]), st.integers(0, 3), st.sampled_from("xyz"))
listing = st.dictionaries(
    st.sampled_from(["git", "jira"]), st.lists(seen, unique_by=lambda s: s.key), min_size=2
)


@given(st.lists(listing, max_size=6))
def test_replaying_listings_requests_once_per_change(listings: list[dict[str, list[Seen]]]) -> None:
    cursor, keys, states = None, [], [{"git": frozenset(), "jira": frozenset()}]
    for one in listings:
        planned = plan(one, cursor)
        cursor = planned.cursor
        if planned.request:
            keys.append(planned.request.run_key)
        state = {name: frozenset(objects) for name, objects in one.items()}
        if state != states[-1]:
            states.append(state)
        assert plan(one, cursor).request is None
    assert len(keys) == len(set(keys)) == len(states) - 1
