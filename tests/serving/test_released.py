import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from alchemy.release import pin, read_release_alias, rollback, unpin
from tests.serving.conftest import Knowledge, Serve, eventually


def test_a_promotion_takes_effect_without_a_restart(knowledge: Knowledge, serve: Serve) -> None:
    first = knowledge.champion("ALPHA")
    second = knowledge.release("BETA")
    with serve() as service:
        assert service.ask()["release"] == first
        knowledge.promote(second)
        service.wait_for(second)
        answer = service.ask()
        assert answer["release"] == second
        assert "BETA" in answer["answer"]
        rollback(knowledge.artifacts)
        service.wait_for(first)


def test_reload_does_not_wait_for_the_poll(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion("ALPHA")
    second = knowledge.release("BETA")
    with serve(follow_s=600) as service:
        knowledge.promote(second)
        reply = service.http.post("/api/models/reload").json()
        assert reply == {"release": second, "changed": True, "problem": None}
        assert service.http.post("/api/models/reload").json()["changed"] is False


def test_a_pinned_release_ignores_the_champion(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion("ALPHA")
    pinned = knowledge.release("BETA")
    with serve(release=pinned) as service:
        assert service.ask()["release"] == pinned


def test_a_pin_holds_the_service_while_promotions_go_on(knowledge: Knowledge, serve: Serve) -> None:
    first = knowledge.champion("ALPHA")
    second = knowledge.release("BETA")
    with serve() as service:
        pin(knowledge.artifacts, first, expected=None)
        knowledge.promote(second)
        eventually(lambda: service.http.get("/readyz").json()["champion"] == second)
        ready = service.http.get("/readyz").json()
        assert (ready["release"], ready["pinned"]) == (first, first)
        assert ready["problems"].get("release") is None
        assert service.ask()["release"] == first
        unpin(knowledge.artifacts, expected=read_release_alias(knowledge.artifacts, "pinned"))
        service.wait_for(second)
        assert service.http.get("/readyz").json()["pinned"] is None
        assert knowledge.behavior.opened == [first, second]


def test_a_rollback_under_load_is_followed_and_no_answer_mixes(knowledge: Knowledge, serve: Serve) -> None:
    markers = {knowledge.champion("ALPHA"): "ALPHA", knowledge.champion("BETA"): "BETA"}
    first, second = markers
    over = threading.Event()
    answers: list[dict[str, Any]] = []

    def hammer() -> None:
        while not over.is_set():
            answers.append(service.ask())

    with serve(threads=4) as service, ThreadPoolExecutor(4) as pool:
        hammers = [pool.submit(hammer) for _ in range(4)]
        eventually(lambda: len(answers) > 10)
        assert rollback(knowledge.artifacts) == first
        service.wait_for(first)
        assert service.ask()["release"] == first  # what is asked from now on is answered by it alone
        followed = len(answers)
        eventually(lambda: len(answers) > followed + 10)
        over.set()
        for each in hammers:
            each.result()
    assert {answer["release"] for answer in answers} == {first, second}
    for answer in answers:
        marker = markers[answer["release"]]
        assert answer["citations"][0]["document_id"] == f"jira:{marker}-1"
        assert marker in answer["answer"]
        assert answer["intuition"]["text"] == f"I recall {marker}."


def test_a_release_that_does_not_load_keeps_the_old_one_and_says_why(
    knowledge: Knowledge, serve: Serve
) -> None:
    first = knowledge.champion("ALPHA")
    second = knowledge.release("BETA")
    mended = threading.Event()

    def load(release_id: str) -> None:
        if release_id == second and not mended.is_set():
            raise RuntimeError("index is damaged")

    knowledge.behavior.load = load
    with serve() as service:
        knowledge.promote(second)
        eventually(lambda: "damaged" in service.http.get("/readyz").json()["problems"].get("release", ""))
        assert service.http.get("/readyz").status_code == 200
        assert service.ask()["release"] == first
        assert "release_load_failures_total 0.0" not in service.metrics()
        mended.set()
        service.wait_for(second)
        assert service.http.get("/readyz").json()["problems"].get("release") is None


@pytest.mark.parametrize("asked", [False, True])
def test_a_release_that_serves_without_a_part_gets_it_back(
    knowledge: Knowledge, serve: Serve, asked: bool
) -> None:
    knowledge.champion()
    lacking = ["intuition of lora_adapter: damaged"]
    load = knowledge.load
    knowledge.load = lambda release_id: replace(  # type: ignore[method-assign]
        load(release_id), problems=tuple(lacking), **({"adapters": {}} if lacking else {})
    )
    with serve(load_retry_s=3600 if asked else 0.1, follow_s=600 if asked else 0.05) as service:
        assert "damaged" in service.http.get("/readyz").json()["problems"]["parts"]
        assert "intuition" in service.ask("Why?")["degraded"]
        lacking.clear()
        if asked:
            assert service.http.post("/api/models/reload").json()["changed"]
        eventually(lambda: "parts" not in service.http.get("/readyz").json()["problems"])
        assert service.ask("When?")["intuition"]["text"] == "I recall ALPHA."


def test_an_old_release_is_closed_when_its_last_request_ends(knowledge: Knowledge, serve: Serve) -> None:
    first = knowledge.champion("ALPHA")
    second = knowledge.release("BETA")
    go, searching = threading.Event(), threading.Event()

    def search(query: str) -> None:
        if "slow" in query:
            searching.set()
            go.wait(120)

    knowledge.behavior.search = search
    with serve(search_s=120) as service, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(service.ask, "How slow does the gateway retry?")
        assert searching.wait(60)
        knowledge.promote(second)
        service.wait_for(second)
        assert service.ask()["release"] == second
        assert knowledge.behavior.closed == []
        assert "releases_held 2.0" in service.metrics()
        go.set()
        assert slow.result()["release"] == first
        eventually(lambda: knowledge.behavior.closed == [first])
        eventually(lambda: "releases_held 1.0" in service.metrics())


def test_a_release_is_not_closed_under_a_search_that_outlived_its_request(
    knowledge: Knowledge, serve: Serve
) -> None:
    first = knowledge.champion("ALPHA")
    second = knowledge.release("BETA")
    go = threading.Event()
    knowledge.behavior.search = lambda query: "slow" in query and go.wait(120)
    with serve(search_s=0.5) as service:
        assert "retrieval" in service.ask("How slow does the gateway retry?")["degraded"]
        knowledge.promote(second)
        service.wait_for(second)
        time.sleep(0.1)
        assert knowledge.behavior.closed == []
        go.set()
        eventually(lambda: knowledge.behavior.closed == [first])


def test_no_answer_mixes_two_releases_while_the_champion_flips(knowledge: Knowledge, serve: Serve) -> None:
    releases = {knowledge.release("ALPHA"): "ALPHA", knowledge.release("BETA"): "BETA"}
    ids = list(releases)
    knowledge.promote(ids[0])
    over = threading.Event()
    # Long enough that a swap falls into the middle of many requests.
    knowledge.behavior.search = lambda _: time.sleep(0.004)
    knowledge.behavior.speak = lambda _: time.sleep(0.006)
    answers: list[dict[str, Any]] = []

    def hammer(number: int) -> None:
        while not over.is_set():
            if number % 2:
                answers.append(service.ask())
                continue
            body = {"messages": [{"role": "user", "content": "How often does the gateway retry?"}]}
            row = service.http.post("/v1/chat/completions", json=body).raise_for_status().json()
            message = row["choices"][0]["message"]
            assert row["system_fingerprint"] == message["release"]
            answers.append(message | {"answer": message["content"]})

    with serve(follow_s=0.01, threads=8, max_concurrent=64) as service, ThreadPoolExecutor(8) as pool:
        hammers = [pool.submit(hammer, number) for number in range(8)]
        for flip in range(60):
            knowledge.promote(ids[(flip + 1) % 2])
            time.sleep(0.05)
        eventually(lambda: len(answers) > 200 and len(knowledge.behavior.opened) > 2)
        over.set()
        for each in hammers:
            each.result()
        eventually(lambda: "releases_held 1.0" in service.metrics())
    seen = set()
    for answer in answers:
        marker = releases[answer["release"]]
        seen.add(marker)
        (other,) = {"ALPHA", "BETA"} - {marker}
        assert marker in answer["answer"]
        assert answer["citations"][0]["document_id"] == f"jira:{marker}-1"
        assert answer["intuition"]["text"] == f"I recall {marker}."
        assert other not in str(answer)
    assert seen == {"ALPHA", "BETA"}
    assert len(knowledge.behavior.closed) >= len(knowledge.behavior.opened) - 1
