"""Streams that are read again, stopped, or shared by people who ask the same."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.serving.conftest import Knowledge, Serve, Service, eventually

QUESTION = "How often does the gateway retry?"


def rows(response: httpx.Response) -> Iterator[tuple[int | None, str, dict[str, Any]]]:
    number, name = None, ""
    for line in response.iter_lines():
        key, _, value = line.partition(": ")
        if key == "id":
            number = int(value)
        elif key == "event":
            name = value
        elif key == "data":
            yield number, name, orjson.loads(value)


def begin(service: Service, until: str) -> tuple[str, int]:
    """Asks, reads as far as the first event of that name, and loses the connection."""
    body = {"question": QUESTION, "stream": True}
    with service.http.stream("POST", "/api/chat", json=body) as response:
        for number, name, data in rows(response):
            if name == "started":
                answer = data["id"]
            if name == until:
                assert number is not None
                return answer, number
    raise AssertionError(f"there was no {until}")


def test_a_broken_stream_goes_on_after_the_last_event_that_was_seen(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.champion()
    go = threading.Event()
    knowledge.behavior.speak = lambda _: go.wait(120)
    with serve(resume_s=120, intuition_grace_s=120) as service:
        answer, seen = begin(service, until="sources")
        go.set()
        again = {"Last-Event-ID": str(seen)}
        with service.http.stream("GET", f"/api/answers/{answer}/events", headers=again) as response:
            rest = list(rows(response))
    assert [number for number, _, _ in rest] == list(range(seen + 1, seen + 1 + len(rest)))
    assert [name for _, name, _ in rest if name != "status"] == ["token", "citation", "usage", "done"]
    assert rest[-1][2]["answer"]["id"] == answer
    assert knowledge.behavior.opened and len(knowledge.behavior.filters) == 1  # searched once


def test_an_answer_that_is_long_done_is_told_as_a_whole(
    knowledge: Knowledge, serve: Serve, valkey: Any
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        answer = service.ask()
    with serve(redis_url=valkey.url) as service:  # another process: it never saw the events
        with service.http.stream("GET", f"/api/answers/{answer['id']}/events") as response:
            ((_, name, data),) = rows(response)
        assert (name, data["answer"]["answer"]) == ("done", answer["answer"])
        assert service.http.get("/api/answers/ans-none/events").status_code == 404


def test_stopping_ends_the_work_and_tells_who_reads(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    knowledge.behavior.speak = lambda stop: stop.wait(120)
    with serve(intuition_grace_s=120) as service:
        body = {"question": QUESTION, "stream": True}
        with service.http.stream("POST", "/api/chat", json=body) as response:
            events = rows(response)
            _, _, started = next(events)
            path = f"/api/answers/{started['id']}"
            assert service.http.delete(path).status_code == 204
            assert [name for _, name, _ in events][-1] == "stopped"
        assert knowledge.behavior.stopped.wait(60)
        eventually(lambda: "questions_in_flight 0.0" in service.metrics())
        assert service.http.delete("/api/answers/ans-none").status_code == 404


def test_equal_questions_at_the_same_time_are_answered_by_one_search(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.champion()
    go = threading.Event()
    knowledge.behavior.search = lambda _: go.wait(120)
    answers: list[dict[str, Any]] = []
    with serve(search_s=120) as service:
        askers = [threading.Thread(target=lambda: answers.append(service.ask())) for _ in range(5)]
        for asker in askers:
            asker.start()
        eventually(lambda: "questions_in_flight 5.0" in service.metrics())
        other = threading.Thread(target=lambda: answers.append(service.ask(QUESTION, top_k=1)))
        other.start()
        eventually(lambda: "questions_in_flight 6.0" in service.metrics())
        go.set()
        for asker in (*askers, other):
            asker.join()
    assert len(knowledge.behavior.filters) == 2  # the five's, and that for fewer passages
    assert len({answer["id"] for answer in answers}) == 6
    assert len({answer["answer"] for answer in answers}) == 1


def test_who_began_a_shared_answer_may_leave(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    go = threading.Event()
    knowledge.behavior.search = lambda _: go.wait(120)
    answers: list[dict[str, Any]] = []
    with serve(search_s=120, resume_s=0) as service:
        begin(service, until="status")
        staying = threading.Thread(target=lambda: answers.append(service.ask()))
        staying.start()
        eventually(lambda: 'answers_total{outcome="canceled"} 1.0' in service.metrics())
        go.set()
        staying.join()
    assert answers[0]["answerable"]


@pytest.mark.parametrize("answer", ["ans-none", "x"])
def test_nobody_reads_an_answer_that_there_is_not(knowledge: Knowledge, serve: Serve, answer: str) -> None:
    with serve(ready=False) as service:
        assert service.http.get(f"/api/answers/{answer}/events").status_code in (404, 503)
