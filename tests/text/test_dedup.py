"""Which copies are dropped, and that the order of the records does not matter."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from alchemy.records import Document
from alchemy.text.dedup import Dropped, content_hash, plan_dedup


def document(title: str, text: str, key: str = "K-1") -> Document:
    return Document(
        id=f"jira:{key}",
        version="v",
        source="jira",
        kind="issue",
        key=key,
        title=title,
        project="K",
        text=text,
        blocks=(),
        fields={},
        metrics={},
        url="",
        updated="",
        raw_key="raw/jira/a.json",
        raw_sha256="0",
        locator="",
    )


def test_case_white_space_and_the_id_do_not_change_the_content_hash():
    one = document("Broker fails", "It  fails\nat once.")
    other = dataclasses.replace(document("BROKER FAILS", "it fails at once. "), id="jira:K-2", key="K-2")
    assert content_hash(one) == content_hash(other)
    assert content_hash(one) != content_hash(document("Broker fails", "It fails at twice."))


def test_the_newest_of_one_id_is_kept_across_time_zones():
    rows = [
        ("jira:K-1", "old", "h1", "2024-05-01T12:00:00+02:00", ("a.json", 0)),
        ("jira:K-1", "new", "h2", "2024-05-01T11:00:00.000+0000", ("b.json", 3)),
        ("jira:K-1", "undated", "h3", "", ("c.json", 0)),
    ]
    kept = ("b.json", 3)
    assert plan_dedup(rows) == {
        ("jira:K-1", ("a.json", 0)): Dropped("superseded", "jira:K-1", kept),
        ("jira:K-1", ("c.json", 0)): Dropped("superseded", "jira:K-1", kept),
    }


def test_equal_dates_are_decided_by_the_order_key():
    rows = [("i", "v2", "h2", "2024-05-01", ("b", 0)), ("i", "v1", "h1", "2024-05-01", ("a", 9))]
    assert plan_dedup(rows) == {("i", ("b", 0)): Dropped("superseded", "i", ("a", 9))}


def test_the_same_record_on_two_pages_is_an_exact_duplicate():
    rows = [("i", "v", "h", "2024", ("a", 0)), ("i", "v", "h", "2024", ("a", 1))]
    assert plan_dedup(rows) == {("i", ("a", 1)): Dropped("exact_duplicate", "i", ("a", 0))}


def test_the_same_content_under_two_ids_is_kept_once():
    rows = [("second", "v", "h", "2025", ("b", 0)), ("first", "w", "h", "2020", ("a", 0))]
    assert plan_dedup(rows) == {("second", ("b", 0)): Dropped("exact_duplicate", "first", ("a", 0))}


def test_a_superseded_record_names_the_one_that_is_published_in_the_end():
    rows = [
        ("copy", "v1", "x", "2020", ("b", 0)),
        ("copy", "v2", "h", "2021", ("c", 0)),
        ("original", "w", "h", "2019", ("a", 0)),
    ]
    assert plan_dedup(rows) == {
        ("copy", ("b", 0)): Dropped("superseded", "original", ("a", 0)),
        ("copy", ("c", 0)): Dropped("exact_duplicate", "original", ("a", 0)),
    }


def test_records_that_differ_are_all_kept():
    assert plan_dedup([("a", "v", "h1", "", ("f", 0)), ("b", "v", "h2", "", ("f", 1))]) == {}
    assert plan_dedup([]) == {}


dates = st.sampled_from(
    ["", "2024", "2024-01-01", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+02:00", "junk"]
)
rows = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from("vw"), st.sampled_from("hij"), dates,
        st.tuples(st.sampled_from(["p", "q"]), st.integers(0, 20)),
    ),
    max_size=25, unique_by=lambda row: row[4],
)  # fmt: skip


@given(rows, st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_the_records(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert plan_dedup(shuffled) == plan_dedup(rows)


@given(rows)
def test_every_dropped_record_is_answered_by_one_that_is_kept(rows):
    plan = plan_dedup(rows)
    kept = {(row[0], row[4]): row for row in rows if (row[0], row[4]) not in plan}
    assert all((drop.kept_id, drop.kept_order_key) in kept for drop in plan.values())
    assert len({row[0] for row in kept.values()}) == len(kept)
    assert len({row[2] for row in kept.values()}) == len(kept)
