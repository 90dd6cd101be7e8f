from collections import Counter
from dataclasses import replace

import pytest

from alchemy.settings import KindShares
from alchemy.synthesis.grounding import Candidate
from alchemy.synthesis.kinds import KINDS, pick, plan_kinds, possible_kinds, quota
from tests.synthesis.corpus import INSIGHTS, ISSUE, chunk

SHARES = KindShares()
SOME = KindShares(fact=1, how=0, comparison=0, numeric=1, unanswerable=0)


def pair(kind: str, number: int = 0) -> Candidate:
    return Candidate(f"{kind} {number}?", "It is.", "It is.", "c", "d", kind, "test")


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_all_plans_together_ask_for_every_kind_in_its_share(most: int) -> None:
    plans = [plan_kinds(f"chunk {number}", SHARES, most, KINDS) for number in range(3000)]
    assert {len(plan) for plan in plans} == {most}
    asked = Counter(kind for plan in plans for kind in plan)
    for kind in KINDS:
        assert asked[kind] / asked.total() == pytest.approx(getattr(SHARES, kind), abs=0.02)


def test_one_chunk_is_asked_for_different_kinds() -> None:
    plans = [plan_kinds(f"chunk {number}", SHARES, 3, KINDS) for number in range(300)]
    assert all("fact" in plan and len(set(plan)) > 1 for plan in plans)


def test_a_plan_depends_on_its_chunk_alone() -> None:
    assert plan_kinds("chunk", SHARES, 3, KINDS) == plan_kinds("chunk", SHARES, 3, KINDS)


def test_only_the_proportions_of_the_shares_count() -> None:
    doubled = KindShares(**{kind: 2 * getattr(SHARES, kind) for kind in KINDS})
    for number in range(100):
        assert plan_kinds(f"{number}", SHARES, 3, KINDS) == plan_kinds(f"{number}", doubled, 3, KINDS)


def test_a_kind_with_no_share_is_never_asked_for() -> None:
    plans = [plan_kinds(f"chunk {number}", SOME, 3, KINDS) for number in range(100)]
    assert {kind for plan in plans for kind in plan} == {"fact", "numeric"}


def test_facts_stand_for_what_a_chunk_cannot_be_asked_for() -> None:
    plans = [plan_kinds(f"chunk {number}", SOME, 3, {"fact"}) for number in range(100)]
    assert set(plans) == {("fact", "fact", "fact")}


def test_numbers_need_facts_and_only_a_whole_document_shows_what_it_lacks() -> None:
    whole = chunk(ISSUE)
    assert possible_kinds(whole, INSIGHTS[0]) == set(KINDS)
    assert set(KINDS) - possible_kinds(whole, None) == {"numeric"}
    assert set(KINDS) - possible_kinds(whole, replace(INSIGHTS[0], facts=())) == {"numeric"}
    assert set(KINDS) - possible_kinds(replace(whole, total_chunks=2), INSIGHTS[0]) == {"unanswerable"}


def test_the_first_pair_is_taken_and_then_those_of_the_plan() -> None:
    pairs = [pair("fact"), pair("fact", 1), pair("numeric"), pair("how")]
    assert [one.kind for one in pick(pairs, ("fact", "how", "numeric"))] == ["fact", "how", "numeric"]
    assert [one.kind for one in pick(pairs, ("how", "fact"))] == ["fact", "fact"]


def test_where_a_planned_kind_is_missing_the_next_fact_is_taken() -> None:
    pairs = [pair("fact"), pair("unanswerable"), pair("fact", 1), pair("fact", 2)]
    assert pick(pairs, ("fact", "comparison")) == [pairs[0], pairs[2]]
    assert pick(pairs[:2], ("fact", "how", "numeric")) == pairs[:1]
    assert pick([], ("fact",)) == []


def test_a_quota_is_the_share_and_facts_take_what_is_left() -> None:
    assert [quota(kind, SHARES, 100) for kind in KINDS] == [100, 25, 10, 15, 10]
    assert quota("comparison", SHARES, 1) == 1
    assert quota("how", SOME, 100) == 0
