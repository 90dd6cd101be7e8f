"""Releases by HTTP, as the admin page reads and moves them."""

from pathlib import Path
from typing import Any

import orjson

from alchemy.artifacts import Request
from alchemy.release import history, note_judgment, promote, read_release_alias
from tests.serving.conftest import Knowledge, Serve, Service


def evaluate(knowledge: Knowledge, marker: str, recall: float) -> str:
    """Publishes an evaluation; returns its version."""
    report = {
        "retrieval": {"recall_at_5": {"mean": recall}, "ndcg_at_10": {"mean": 0.8}},
        "answers": {"citation_precision": {"mean": 0.97}, "groundedness": None},
        "adapters": {"lora_adapter": {"refused": "no pairs", "by_pair": {"pair-1": 2.0}}},
        "leaks": 0,
        "by_question": {"Who?": {"recall_at_5": 1.0}},
    }

    def build(folder: Path) -> dict[str, Any]:
        (folder / "report.json").write_bytes(orjson.dumps(report))
        (folder / "report.md").write_text(f"## Retrieval\n\nrecall@5 {recall}\n")
        return {}

    return knowledge.artifacts.materialize(Request("evaluation", {}, marker), build).artifact.version


def judge(knowledge: Knowledge, release: str, *reasons: str) -> None:
    note_judgment(knowledge.artifacts, release, {"passed": not reasons, "reasons": list(reasons)})


def get(service: Service, path: str) -> dict[str, Any]:
    row: dict[str, Any] = service.http.get(f"/api/releases{path}").raise_for_status().json()
    return row


def post(service: Service, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    response = service.http.post(f"/api/releases{path}", json=body)
    return response.status_code, response.json()


def test_releases_are_listed_newest_first_with_verdict_scores_and_what_serves(
    knowledge: Knowledge, serve: Serve
) -> None:
    first = knowledge.release("ALPHA", evaluation=evaluate(knowledge, "ALPHA", 0.9))
    judge(knowledge, first)
    knowledge.promote(first)
    second = knowledge.release("BETA")
    judge(knowledge, second, "recall@5 0.300 is under the floor 0.5")
    with serve() as service:
        listed = get(service, "")
    assert [row["id"] for row in listed["releases"]] == [second, first]
    assert (listed["champion"], listed["pinned"], listed["total"]) == (first, None, 2)
    beta, alpha = listed["releases"]
    assert alpha["serving"] and alpha["aliases"] == ["champion"] and alpha["gate"]["passed"]
    assert alpha["scores"]["recall_at_5"] == 0.9
    assert not beta["serving"]
    assert beta["gate"]["reasons"] == ["recall@5 0.300 is under the floor 0.5"]
    assert beta["scores"] == {}


def test_a_release_shows_its_parts_its_report_and_its_history(knowledge: Knowledge, serve: Serve) -> None:
    champion = knowledge.release("ALPHA", evaluation=evaluate(knowledge, "ALPHA", 0.9))
    knowledge.promote(champion)
    with serve() as service:
        shown = get(service, "/champion")
        assert service.http.get("/api/releases/none").status_code == 404
    assert shown["id"] == champion
    assert shown["record"]["embedder"] == "e"
    assert shown["report"]["retrieval"]["recall_at_5"]["mean"] == 0.9
    assert "by_question" not in shown["report"]
    assert "by_pair" not in shown["report"]["adapters"]["lora_adapter"]
    assert shown["rendered"].startswith("## Retrieval")
    assert [row["event"] for row in shown["history"]] == ["promoted"]


def test_the_diff_of_two_releases_names_parts_scores_and_what_could_not_be_compared(
    knowledge: Knowledge, serve: Serve
) -> None:
    first = knowledge.release("ALPHA", evaluation=evaluate(knowledge, "ALPHA", 0.9))
    second = knowledge.release("BETA", evaluation=evaluate(knowledge, "BETA", 0.7), embedder="e2")
    knowledge.promote(first)
    with serve() as service:
        found = get(service, f"/champion/diff/{second}")
    assert (found["before"], found["after"]) == (first, second)
    assert found["parts"]["embedder"] == ["e", "e2"]
    assert found["scores"] == {"recall_at_5": [0.9, 0.7]}
    assert found["documents"] is None
    assert found["missing"]


def test_a_release_that_the_gate_passed_is_promoted_and_serves_at_once(
    knowledge: Knowledge, serve: Serve
) -> None:
    first, second = knowledge.champion("ALPHA"), knowledge.release("BETA")
    judge(knowledge, second)
    with serve() as service:
        assert post(service, f"/{second}/promote", expected=first) == (
            200, {"champion": second, "pinned": None}
        )  # fmt: skip
        assert service.ask()["release"] == second
    moved = history(knowledge.artifacts, second)[-1]
    assert (moved["event"], moved["by"], moved["champion"]) == ("promoted", "anonymous", first)


def test_what_the_gate_did_not_pass_needs_force_and_a_reason_that_stays(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.champion("ALPHA")
    second = knowledge.release("BETA")
    judge(knowledge, second, "worse")
    with serve() as service:
        status, refused = post(service, f"/{second}/promote")
        assert status == 422 and "gate" in refused["error"]["message"]
        status, refused = post(service, f"/{second}/promote", force=True, reason=" ")
        assert status == 422 and "reason" in refused["error"]["message"]
        status, moved = post(service, f"/{second}/promote", force=True, reason="the floor was wrong")
        assert (status, moved["champion"]) == (200, second)
    assert history(knowledge.artifacts, second)[-1]["note"] == "forced: the floor was wrong"


def test_of_two_people_who_move_the_champion_one_is_told_to_look_again(
    knowledge: Knowledge, serve: Serve
) -> None:
    first, second, third = knowledge.champion("ALPHA"), knowledge.release("BETA"), knowledge.release("GAMMA")
    for release in (second, third):
        judge(knowledge, release)
    with serve() as service:
        assert post(service, f"/{second}/promote", expected=first)[0] == 200
        status, refused = post(service, f"/{third}/promote", expected=first)
        assert status == 409 and second in refused["error"]["message"]
        assert post(service, "/rollback", expected=first)[0] == 409
        assert post(service, "/rollback", expected=second) == (200, {"champion": first, "pinned": None})
    assert history(knowledge.artifacts, first)[-1]["by"] == "anonymous"


def test_a_pinned_release_serves_until_it_is_let_go(knowledge: Knowledge, serve: Serve) -> None:
    first, second = knowledge.champion("ALPHA"), knowledge.release("BETA")
    with serve() as service:
        assert post(service, f"/{second}/pin", reason="an incident") == (
            200, {"champion": first, "pinned": second}
        )  # fmt: skip
        assert service.ask()["release"] == second
        assert post(service, f"/{first}/pin", expected="")[0] == 409
        assert post(service, "/unpin", expected=second) == (200, {"champion": first, "pinned": None})
        assert service.ask()["release"] == first
        assert post(service, "/unpin")[0] == 404
        assert post(service, "/none/pin")[0] == 404
    events = [(row["event"], row["by"], row.get("note")) for row in history(knowledge.artifacts, second)]
    assert events == [("pinned", "anonymous", "an incident"), ("unpinned", "anonymous", None)]


def test_a_promotion_elsewhere_between_look_and_move_loses_nothing(
    knowledge: Knowledge, serve: Serve
) -> None:
    first, second, third = knowledge.champion("ALPHA"), knowledge.release("BETA"), knowledge.release("GAMMA")
    judge(knowledge, third)
    with serve() as service:
        seen = get(service, "")["champion"]
        champion = read_release_alias(knowledge.artifacts, "champion")
        promote(knowledge.artifacts, second, expected=champion, note="gate passed")
        assert post(service, f"/{third}/promote", expected=seen)[0] == 409
        assert get(service, "")["champion"] == second
    assert seen == first
