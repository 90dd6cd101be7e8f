"""The WebSocket, spoken to by the `websockets` client."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.serving.conftest import QUOTED, Knowledge, Serve, Service, Valkey, eventually, handshake, person

QUESTION = "How often does the gateway retry?"
WAIT_S = 60


@contextmanager
def talk(service: Service, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    url = f"{service.url.replace('http', 'ws')}/ws/chat{query}"
    with connect(url, proxy=None, open_timeout=WAIT_S, close_timeout=WAIT_S, **options) as socket:
        yield socket


def say(socket: ClientConnection, kind: str, **message: Any) -> None:
    socket.send(orjson.dumps({"type": kind, **message}).decode())


def ask(socket: ClientConnection, question: str = QUESTION, **message: Any) -> None:
    say(socket, "question", question=question, **message)


def hear(socket: ClientConnection) -> dict[str, Any]:
    row: dict[str, Any] = orjson.loads(socket.recv(timeout=WAIT_S))
    return row


def hear_until(socket: ClientConnection, *last: str) -> list[dict[str, Any]]:
    rows = [hear(socket)]
    while rows[-1]["event"] not in last:
        rows.append(hear(socket))
    return rows


def closed(socket: ClientConnection) -> tuple[int, str]:
    """The code and reason that the service closes with."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            socket.recv(timeout=WAIT_S)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


def test_a_question_is_answered_with_statuses_tokens_citations_and_the_whole_answer(
    knowledge: Knowledge, serve: Serve
) -> None:
    champion = knowledge.champion("ALPHA")
    with serve() as service, talk(service) as socket:
        ask(socket, ref="mine")
        rows = hear_until(socket, "done")
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["ref"] for row in rows} == {"mine"}
    started, done = rows[0], rows[-1]["answer"]
    assert (started["event"], started["answer"], started["release"]) == ("started", done["id"], champion)
    stages = [row["stage"] for row in rows if row["event"] == "status" and row["state"] == "start"]
    assert stages == ["Retrieving", "Consulting", "Fusing"]
    assert "".join(row["text"] for row in rows if row["event"] == "token") == done["answer"] == QUOTED
    assert [row["citation"] for row in rows if row["event"] == "citation"] == done["citations"]


def test_several_questions_of_one_connection_are_answered_at_the_same_time(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.champion()
    both = threading.Barrier(2, timeout=WAIT_S)
    knowledge.behavior.search = lambda _: both.wait()
    with serve() as service, talk(service) as socket:
        ask(socket, "How often does the gateway retry?", ref="a")
        ask(socket, "What does the gateway raise?", ref="b")
        rows = hear_until(socket, "done")
        rows += hear_until(socket, "done")
    assert {row["ref"] for row in rows if row["event"] == "done"} == {"a", "b"}
    for ref in ("a", "b"):
        mine = [row["id"] for row in rows if row["ref"] == ref]
        assert mine == list(range(1, len(mine) + 1))


def test_a_stopped_answer_ends_and_the_connection_goes_on(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    going = threading.Event()
    knowledge.behavior.search = lambda query: going.wait(WAIT_S) if "slow" in query else None
    with serve() as service, talk(service) as socket:
        ask(socket, "a slow question?", ref="slow")
        started = hear(socket)
        say(socket, "stop", id=started["answer"])
        assert hear_until(socket, "stopped")[-1]["ref"] == "slow"
        going.set()
        ask(socket, ref="next")
        assert hear_until(socket, "done")[-1]["ref"] == "next"


def test_another_connection_goes_on_after_the_last_event_that_was_seen(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.champion()
    going = threading.Event()
    knowledge.behavior.search = lambda _: going.wait(WAIT_S)
    with serve(resume_s=WAIT_S) as service:
        with talk(service) as socket:
            ask(socket)
            seen = [hear(socket), hear(socket)]
        going.set()
        with talk(service) as socket:
            say(socket, "resume", id=seen[0]["answer"], after=seen[-1]["id"], ref="again")
            rest = hear_until(socket, "done")
    numbers = [row["id"] for row in seen + rest]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {row["ref"] for row in rest} == {"again"}


def test_who_leaves_and_does_not_come_back_cancels_the_work(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    knowledge.behavior.speak = lambda stop: stop.wait(WAIT_S)
    with serve(resume_s=0.01) as service:
        with talk(service) as socket:
            ask(socket)
            hear(socket)
        assert knowledge.behavior.stopped.wait(WAIT_S)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalid_json"),
        ('"question"', "invalid_value"),
        ('{"type": "dance"}', "invalid_value"),
        ('{"type": "question", "question": "  ", "ref": "x"}', "invalid_value"),
        ('{"type": "question", "question": "Why?", "color": "red", "ref": "x"}', "invalid_value"),
        ('{"type": "stop", "id": "ans-0", "ref": "x"}', "not_found"),
        ('{"type": "resume", "id": "ans-0", "after": -1, "ref": "x"}', "invalid_value"),
    ],
)
def test_a_message_that_makes_no_sense_is_refused_and_the_connection_goes_on(
    knowledge: Knowledge, serve: Serve, text: str, code: str
) -> None:
    knowledge.champion()
    with serve() as service, talk(service) as socket:
        socket.send(text)
        refused = hear(socket)
        ask(socket)
        assert hear_until(socket, "done")
    assert (refused["event"], refused["code"]) == ("error", code)
    assert refused["message"]
    assert refused["ref"] == ("x" if '"ref"' in text else None)


def test_more_answers_at_once_than_the_bound_are_refused(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    going = threading.Event()
    knowledge.behavior.search = lambda _: going.wait(WAIT_S)
    with serve(socket_questions=1) as service, talk(service) as socket:
        ask(socket, ref="first")
        hear(socket)
        ask(socket, ref="second")
        refused = hear_until(socket, "error")[-1]
        going.set()
        assert (refused["code"], refused["ref"]) == ("too_many_at_once", "second")
        assert hear_until(socket, "done")[-1]["ref"] == "first"
        ask(socket, ref="third")
        assert hear_until(socket, "done")[-1]["ref"] == "third"


def test_what_is_too_large_too_often_or_no_text_ends_the_connection(
    knowledge: Knowledge, serve: Serve
) -> None:
    with serve(ready=False, socket_message_bytes=1024, socket_messages_per_minute=3) as service:
        with talk(service) as socket:
            socket.send("x" * 2000)
            assert closed(socket)[0] == 1009
        with talk(service) as socket:
            socket.send(b"{}")
            assert closed(socket)[0] == 1003
        with talk(service) as socket:
            for _ in range(4):
                socket.send("{}")
            assert closed(socket) == (4429, "too many messages")


def test_a_connection_that_asks_nothing_is_closed(knowledge: Knowledge, serve: Serve) -> None:
    with serve(ready=False, socket_idle_s=0.05) as service, talk(service) as socket:
        assert closed(socket) == (1000, "nothing was asked")


def test_the_page_of_another_site_may_not_ask(knowledge: Knowledge, serve: Serve) -> None:
    with serve(ready=False) as service:
        assert handshake(service, "/ws/chat", {"Origin": "https://evil.example"}) == 403
        with talk(service, origin=service.url) as socket:
            ask(socket)
            assert hear_until(socket, "done")
        eventually(lambda: service.http.get("/healthz").is_success)


def test_a_single_use_ticket_opens_one_connection_and_logging_out_closes_it(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url, users=[person("ann")], socket_login_s=0.05) as service:
        ann = service.as_person("ann")
        ticket = service.http.post("/api/auth/ticket", headers=ann).json()["ticket"]
        with talk(service, f"?ticket={ticket}") as socket:
            ask(socket)
            answer = hear_until(socket, "done")[-1]["answer"]
            stored = service.http.get(f"/v1/answers/{answer['id']}", headers=ann)
            assert stored.json()["id"] == answer["id"]
            assert service.http.post("/api/auth/logout", headers=ann).status_code == 204
            assert closed(socket)[0] == 4401
        for query in (f"?ticket={ticket}", "?ticket=guess", ""):
            assert handshake(service, f"/ws/chat{query}") == 401


@pytest.mark.parametrize("change", ["password", "role", "made again"])
def test_a_login_that_a_change_ended_closes_its_connection(
    knowledge: Knowledge, serve: Serve, valkey: Valkey, change: str
) -> None:
    users = [person("ann"), person("root", "admin")]
    with serve(redis_url=valkey.url, users=users, socket_login_s=0.05, ready=False) as service:
        ann, root, http = service.as_person("ann"), service.as_person("root"), service.http
        with talk(service, additional_headers=ann) as socket:
            if change == "made again":
                assert http.delete("/api/users/ann", headers=root).status_code == 204
                again = {"name": "ann", "password": "another long password"}
                assert http.post("/api/users", json=again, headers=root).status_code == 201
            else:
                new = {"password": "another long password"} if change == "password" else {"role": "curator"}
                assert http.patch("/api/users/ann", json=new, headers=root).status_code == 200
            assert closed(socket)[0] == 4401


def test_an_answer_is_resumed_and_stopped_by_its_asker_alone(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    going = threading.Event()
    knowledge.behavior.search = lambda _: going.wait(WAIT_S)
    with serve(redis_url=valkey.url, users=[person("ann"), person("bob")]) as service:
        ann, bob = service.as_person("ann"), service.as_person("bob")
        with talk(service, additional_headers=ann) as hers, talk(service, additional_headers=bob) as his:
            ask(hers)
            started = hear(hers)
            for kind in ("stop", "resume"):
                say(his, kind, id=started["answer"])
                assert hear(his)["code"] == "not_found"
            going.set()
            assert hear_until(hers, "done")


def test_questions_over_a_socket_count_like_requests(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    limited = serve(redis_url=valkey.url, users=[person("ann")], requests_per_minute=3)
    with limited as service, talk(service, additional_headers=service.as_person("ann")) as socket:
        ends = []
        for _ in range(4):
            ask(socket)
            ends.append(hear_until(socket, "done", "error")[-1])
    assert ends[0]["event"] == "done"
    assert ends[-1]["code"] == "rate_limit_exceeded"
