"""The gate decides by numbers, and aliases move by compare-and-swap."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alchemy.artifacts import Artifacts, Request
from alchemy.errors import Conflict, NotFound
from alchemy.gate import Policy, Scores, decide
from alchemy.release import (
    RECORD,
    Release,
    describe,
    history,
    list_releases,
    named_releases,
    note_event,
    pin,
    promote,
    read_release,
    read_release_alias,
    release_line,
    resolve_release,
    rollback,
    unpin,
)
from alchemy.retrieval.fuse import SearchWeights

GOOD = Scores(recall_at_5=0.9, ndcg_at_10=0.8, base_loss=3.0, adapter_loss=2.0, leaks=0)


@pytest.mark.parametrize(
    ("candidate", "champion", "told"),
    [
        (GOOD, None, None),
        (GOOD, GOOD, None),
        (GOOD, replace(GOOD, recall_at_5=0.94), None),
        (replace(GOOD, leaks=2), None, "2 secrets"),
        (replace(GOOD, recall_at_5=0.4), None, "under the floor"),
        (replace(GOOD, adapter_loss=3.0), None, "not under the base's"),
        (replace(GOOD, adapter_loss=float("nan")), None, "not under the base's"),
        (GOOD, replace(GOOD, recall_at_5=0.99), "recall@5 0.900 is more than"),
        (GOOD, replace(GOOD, ndcg_at_10=0.9), "nDCG@10 0.800 is more than"),
        (GOOD, replace(GOOD, adapter_loss=1.8), "over the champion's"),
        (Scores(None, None, None, None, 0), GOOD, None),
    ],
)
def test_the_gate_names_why_a_candidate_is_refused(
    candidate: Scores, champion: Scores | None, told: str | None
) -> None:
    decision = decide(candidate, champion, Policy())
    assert decision.passed == (told is None)
    assert told is None or any(told in reason for reason in decision.reasons)


def test_every_reason_is_told_not_only_the_first() -> None:
    bad = Scores(recall_at_5=0.1, ndcg_at_10=0.1, base_loss=1.0, adapter_loss=2.0, leaks=1)
    assert len(decide(bad, GOOD, Policy()).reasons) == 5


def publish(artifacts: Artifacts, index: str) -> str:
    release = Release(index, {}, "base", "embedder", "reranker", SearchWeights(), "1", "evaluation")

    def build(folder: Path) -> dict[str, Any]:
        (folder / RECORD).write_bytes(release_line(release))
        return {"passed": True}

    return artifacts.materialize(Request("release", {"faiss_index": index}, "1"), build).artifact.version


def test_a_promoted_release_is_the_champion_and_the_old_one_is_previous(artifacts: Artifacts) -> None:
    first, second = publish(artifacts, "A"), publish(artifacts, "B")
    promote(artifacts, first, expected=None)
    promote(artifacts, second, expected=read_release_alias(artifacts, "champion"))
    assert read_release(artifacts, second).index == "B"
    assert describe(artifacts, second)["aliases"] == ["champion"]
    assert describe(artifacts, first)["aliases"] == ["previous"]
    assert rollback(artifacts) == first
    assert describe(artifacts, first)["aliases"] == ["champion"]
    assert [one.version for one in list_releases(artifacts)] == [first, second]


def test_of_two_promotions_that_race_one_wins(artifacts: Artifacts) -> None:
    ids = [publish(artifacts, name) for name in "ABC"]
    promote(artifacts, ids[0], expected=None)
    seen = read_release_alias(artifacts, "champion")
    outcomes: dict[str, bool] = {}
    barrier = threading.Barrier(2)

    def race(release: str) -> None:
        barrier.wait()
        try:
            promote(artifacts, release, expected=seen)
            outcomes[release] = True
        except Conflict:
            outcomes[release] = False

    threads = [threading.Thread(target=race, args=(release,)) for release in ids[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes.values()) == [False, True]
    champion = read_release_alias(artifacts, "champion")
    assert champion is not None
    assert outcomes[champion.release]


def test_a_pin_stays_where_it_is_through_promotions_until_it_is_lifted(artifacts: Artifacts) -> None:
    first, second = publish(artifacts, "A"), publish(artifacts, "B")
    promote(artifacts, first, expected=None)
    pin(artifacts, first, expected=None)
    promote(artifacts, second, expected=read_release_alias(artifacts, "champion"))
    assert resolve_release(artifacts, "pinned") == first
    assert describe(artifacts, first)["aliases"] == ["previous", "pinned"]
    assert named_releases(artifacts)["pinned"] == first
    unpin(artifacts, expected=read_release_alias(artifacts, "pinned"))
    assert "pinned" not in named_releases(artifacts)
    with pytest.raises(NotFound, match="no release is pinned"):
        resolve_release(artifacts, "pinned")
    with pytest.raises(NotFound, match="no release is pinned"):
        unpin(artifacts, expected=read_release_alias(artifacts, "pinned"))
    pin(artifacts, second, expected=read_release_alias(artifacts, "pinned"))
    assert resolve_release(artifacts, "pinned") == second
    assert [row["event"] for row in history(artifacts, first)] == ["promoted", "pinned", "unpinned"]


def test_a_pin_that_another_one_overtook_loses(artifacts: Artifacts) -> None:
    first, second = publish(artifacts, "A"), publish(artifacts, "B")
    pin(artifacts, first, expected=None)
    with pytest.raises(Conflict):
        pin(artifacts, second, expected=None)
    with pytest.raises(NotFound):
        pin(artifacts, "none", expected=read_release_alias(artifacts, "pinned"))
    assert resolve_release(artifacts, "pinned") == first


def test_an_unknown_release_is_not_promoted(artifacts: Artifacts) -> None:
    with pytest.raises(NotFound):
        promote(artifacts, "none", expected=None)
    with pytest.raises(NotFound, match="previous"):
        rollback(artifacts)
    assert read_release_alias(artifacts, "champion") is None


def test_every_judgment_and_move_stays_in_the_history(artifacts: Artifacts) -> None:
    first, second = publish(artifacts, "A"), publish(artifacts, "B")
    promote(artifacts, first, expected=None, note="gate passed")
    note_event(artifacts, second, "judged", passed=False, reasons=["worse"], champion=first)
    promote(artifacts, second, expected=read_release_alias(artifacts, "champion"), note="forced by hand")
    note_event(artifacts, second, "judged", passed=True, reasons=[], champion=second)
    rollback(artifacts)
    assert [(row["event"], row.get("note")) for row in history(artifacts, first)] == [
        ("promoted", "gate passed"),
        ("promoted", "rollback"),
    ]
    assert [row["event"] for row in history(artifacts, second)] == ["judged", "promoted", "judged"]
    assert describe(artifacts, second)["gate"]["passed"] is True
    assert describe(artifacts, first)["gate"] is None
