"""The cache as people meet it: what is asked again costs no search, and no one gets another's answer."""

from typing import Any

import pytest
import redis

from serving.answer import Filters, Question
from serving.people.access import Principal
from serving.sharing import scope
from tests.serving.conftest import Knowledge, Serve, Service, Valkey, eventually

QUESTION = "How often does the gateway retry?"


def kept(service: Service, entries: int = 1) -> None:
    """Returns when the cache holds so many answers: they are kept after they were given."""
    eventually(lambda: service.http.get("/api/cache").json()["entries"] == entries)


def test_the_same_question_is_answered_from_the_cache_by_every_process(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    champion = knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        first = service.ask(QUESTION)
        kept(service)
        again = service.ask(f"  {QUESTION} ")
    valkey.kill()
    valkey.start()
    with serve(redis_url=valkey.url) as service:
        third = service.ask(QUESTION)
        assert 'inference_cache_hits_total{tier="exact"} 1.0' in service.metrics()
        assert service.http.get(f"/v1/answers/{third['id']}/lineage").status_code == 200
    assert len(knowledge.behavior.filters) == 1
    assert [one["cached"] for one in (first, again, third)] == [None, "exact", "exact"]
    assert len({one["id"] for one in (first, again, third)}) == 3
    same = ("answer", "citations", "finalist", "intuition", "answerable", "degraded")
    assert all(one[name] == first[name] for one in (again, third) for name in same)
    assert third["release"] == champion


def test_a_question_that_means_the_same_is_answered_from_the_cache(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        service.ask(QUESTION)
        kept(service)
        reworded = service.ask("Could you tell me how often does the gateway retry?")
        other = service.ask("How often does the gateway restart?")
    assert (reworded["cached"], reworded["cached_question"]) == ("semantic", QUESTION)
    assert other["cached"] is None


def test_a_new_release_answers_anew(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> None:
    knowledge.champion("ALPHA")
    with serve(redis_url=valkey.url) as service:
        service.ask(QUESTION)
        kept(service)
        service.wait_for(knowledge.champion("BETA"))
        answer = service.ask(QUESTION)
    assert answer["cached"] is None and "BETA" in answer["answer"]


def test_what_went_without_a_feature_is_not_kept(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> None:
    knowledge.champion()

    def fail(_: object) -> None:
        raise RuntimeError("no memory")

    knowledge.behavior.speak = fail
    with serve(redis_url=valkey.url) as service:
        assert service.ask(QUESTION)["degraded"] == ["intuition"]
        knowledge.behavior.speak = lambda _: None
        whole = service.ask(QUESTION)
        kept(service)
        again = service.ask(QUESTION)
    assert (whole["cached"], whole["degraded"]) == (None, [])
    assert again["cached"] == "exact"


def test_a_document_that_goes_takes_its_answers_along(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion("ALPHA")
    with serve(redis_url=valkey.url) as service:
        service.ask(QUESTION)
        kept(service)
        assert service.http.delete("/api/cache/documents/jira:ALPHA-1").json()["dropped"] == 1
        assert service.ask(QUESTION)["cached"] is None


def test_a_follow_up_is_found_by_what_it_means(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        answers = []
        for number, about in enumerate(("HAUL-12", "HAUL-13", "HAUL-12")):
            session = service.http.post("/api/sessions", json={}).json()["id"]
            service.ask(f"Who fixed {about}?", session=session)
            answers.append(service.ask("And when was that?", session=session))
            kept(service, entries=min(2 * number + 2, 4))
    assert [one["cached"] for one in answers] == [None, None, "exact"]
    assert [one["standalone"] for one in answers][2] == "And when was that (HAUL-12)?"


def test_a_sample_of_reworded_hits_is_made_again_in_the_background(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url, cache_shadow=1.0) as service:
        service.ask(QUESTION)
        kept(service)
        assert service.ask("Could you tell me how often does the gateway retry?")["cached"] == "semantic"
        eventually(lambda: "inference_cache_shadow_checks_total 1.0" in service.metrics())
        assert "inference_cache_false_hits_total 0.0" in service.metrics()
    assert len(knowledge.behavior.filters) == 2


def test_without_the_state_server_every_question_is_answered_anew(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        service.ask(QUESTION)
        kept(service)
        valkey.kill()
        answer = service.ask(QUESTION)
        assert (answer["cached"], answer["answerable"]) == (None, True)
        assert "state server" in service.http.get("/api/cache").json()["problem"]
        valkey.start()
        eventually(lambda: service.ask(QUESTION)["cached"] == "exact")


def test_what_the_cache_holds_is_sealed_where_history_is(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url, settings={"history_key": "ab" * 32}) as service:
        service.ask(QUESTION)
        kept(service)
        assert service.ask(QUESTION)["cached"] == "exact"
    with redis.Redis.from_url(valkey.url) as server:
        held = [server.dump(key) for key in server.scan_iter("alchemy:*")]
    assert held and not any(b"gateway" in row for row in held)


ANN = Principal("ann", "reader", "acme", frozenset({"jira/HAUL"}))


@pytest.mark.parametrize(
    "other",
    [
        {"asker": Principal("ann", "reader", "umbrella", frozenset({"jira/HAUL"}))},
        {"asker": Principal("ann", "reader", "acme", frozenset({"jira/HAUL", "git/*"}))},
        {"asker": Principal("ann", "reader", "acme", None)},
        {"top_k": 3},
        {"filters": Filters(sources=["jira"])},
        {"intuition": False},
        {"adapter": "support"},
    ],
)
def test_answers_are_shared_by_those_alone_who_would_get_the_same(other: dict[str, Any]) -> None:
    mine = Question(text=QUESTION, asker=ANN)
    assert scope(mine, "r1") != scope(mine.model_copy(update=other), "r1")
    assert scope(mine, "r1") != scope(mine, "r2")
    assert scope(mine, "r1") != scope(mine, "r1", ["deepseek/deepseek-chat"])


def test_two_people_of_one_tenant_who_may_read_the_same_share() -> None:
    bob = Principal("bob", "admin", "acme", frozenset({"jira/HAUL"}))
    questions = [Question(text=QUESTION, asker=asker, session=asker.name) for asker in (ANN, bob)]
    assert len({scope(question, "r1") for question in questions}) == 1
