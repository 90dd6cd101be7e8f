import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import redis

from alchemy.errors import NotFound
from alchemy.quoting import Citation
from alchemy.retrieval.conversation import Turn
from serving.answer import Answer, Usage
from serving.people.access import ANYONE, Principal
from serving.people.sealing import Sealing
from serving.people.sessions import Session, Sessions
from serving.state import State
from tests.serving.conftest import Knowledge, Serve, Valkey, person

ANN, BOB = Principal("ann"), Principal("bob")
ANN_ELSEWHERE = Principal("ann", tenant="other")
CITATION = Citation(
    1, "jira:HAUL-1", "v1", "c1", "HAUL-1", "jira", "", "Three times.", 5, 17, "raw/x", "ab", "", 0.9
)
ANSWER = Answer(
    id="ans-1", release="r", created_at="2026-01-01", answer="Three times. [1]", answerable=True,
    finalist="extractive", citations=[CITATION], intuition=None, degraded=[], seconds={},
    usage=Usage(prompt_tokens=1, completion_tokens=1, counted_by="estimate"),
)  # fmt: skip
Talk = Callable[[Callable[[Sessions], Awaitable[Any]]], Any]


@pytest.fixture
def talk(valkey: Valkey) -> Callable[..., Any]:
    """Runs one coroutine function with the sessions of a real server."""

    def run(work: Callable[[Sessions], Awaitable[Any]], *keys: str, **bounds: int) -> Any:
        async def with_sessions() -> Any:
            state = State(valkey.url, deadline_s=10)
            limits = {"ttl_s": 60, "most_messages": 6, "most_sessions": 3} | bounds
            try:
                return await work(Sessions(state, Sealing(keys), **limits))
            finally:
                await state.close()

        return asyncio.run(with_sessions())

    return run


def test_a_conversation_is_kept_in_order_and_named_after_its_first_question(talk: Talk) -> None:
    async def work(sessions: Sessions) -> None:
        made = await sessions.create(ANN)
        await sessions.append(ANN, made.id, "How often\n does it   retry?", ANSWER)
        await sessions.append(ANN, made.id, "And then?", ANSWER)
        read = await sessions.get(ANN, made.id)
        assert read.title == "How often does it retry?"
        assert [m.role for m in read.messages] == ["user", "assistant"] * 2
        assert read.messages[1].citations == [CITATION]
        assert read.messages[1].answer_id == "ans-1"
        assert await sessions.turns(ANN, made.id, 2) == [
            Turn("user", "And then?"),
            Turn("assistant", "Three times. [1]", about="HAUL-1"),
        ]
        assert await sessions.turns(ANN, made.id, 0) == []

    talk(work)


def test_the_first_messages_and_the_most_silent_sessions_go(talk: Talk) -> None:
    async def work(sessions: Sessions) -> None:
        first, second = await sessions.create(ANN, "first"), await sessions.create(ANN, "second")
        for number in range(5):
            await sessions.append(ANN, first.id, f"question {number}", ANSWER)
        assert [t.content for t in await sessions.turns(ANN, first.id, 99)][::2] == [
            "question 2", "question 3", "question 4",
        ]  # fmt: skip
        for title in ("third", "fourth"):
            await sessions.create(ANN, title)
        kept: list[Session] = await sessions.of(ANN)
        assert [session.title for session in kept] == ["fourth", "third", "first"]
        with pytest.raises(NotFound):
            await sessions.get(ANN, second.id)

    talk(work)


def test_nobody_else_sees_it_not_even_who_has_the_name_in_another_tenant(talk: Talk) -> None:
    async def work(sessions: Sessions) -> None:
        made = await sessions.create(ANN, "mine")
        for other in (BOB, ANN_ELSEWHERE, ANYONE):
            assert await sessions.of(other) == []
            for attempt in (
                sessions.get(other, made.id),
                sessions.turns(other, made.id, 5),
                sessions.append(other, made.id, "?", ANSWER),
                sessions.rename(other, made.id, "theirs"),
                sessions.delete(other, made.id),
            ):
                with pytest.raises(NotFound):
                    await attempt
            assert await sessions.delete_all(other.owner) == 0
        assert [session.title for session in await sessions.of(ANN)] == ["mine"]

    talk(work)


@pytest.mark.parametrize("wrong", ["", "*", "../x", "{id}:messages", "{id} ", "0" * 24, "é", "x" * 10_000])
def test_an_id_that_is_none_is_nobodys(talk: Talk, wrong: str) -> None:
    async def work(sessions: Sessions) -> None:
        made = await sessions.create(ANN)
        await sessions.append(ANN, made.id, "?", ANSWER)
        with pytest.raises(NotFound):
            await sessions.get(ANN, wrong.replace("{id}", made.id))
        with pytest.raises(NotFound):
            await sessions.append(ANN, wrong.replace("{id}", made.id), "?", ANSWER)

    talk(work)


def test_what_was_deleted_meanwhile_is_not_brought_back_by_its_answer(talk: Talk) -> None:
    async def work(sessions: Sessions) -> None:
        made, other = await sessions.create(ANN), await sessions.create(ANN, "other")
        await sessions.delete(ANN, made.id)
        with pytest.raises(NotFound):
            await sessions.append(ANN, made.id, "?", ANSWER)
        assert await sessions.delete_all(ANN.owner) == 1
        assert await sessions.of(ANN) == []
        with pytest.raises(NotFound):
            await sessions.get(ANN, other.id)

    talk(work)


def test_at_rest_nothing_is_readable_where_there_is_a_key(talk: Callable[..., Any], valkey: Valkey) -> None:
    async def write(sessions: Sessions) -> str:
        made = await sessions.create(ANN)
        await sessions.append(ANN, made.id, "Where is the zebra?", ANSWER)
        return made.id

    async def read(sessions: Sessions) -> Any:
        return await sessions.get(ANN, made)

    made = talk(write, "11" * 32)
    with redis.Redis.from_url(valkey.url) as state:
        kept = b"".join(state.dump(key) for key in state.scan_iter("alchemy:*"))
    assert b"zebra" not in kept
    assert b"Three times" not in kept
    after_rotation = talk(read, "22" * 32, "11" * 32)
    assert after_rotation.title == "Where is the zebra?"
    assert after_rotation.messages[1].citations == [CITATION]


def test_answers_are_sealed_too(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url, settings={"history_key": "33" * 32}) as service:
        answer = service.ask("How often does the zebra retry?")
        with redis.Redis.from_url(valkey.url) as state:
            assert b"zebra" not in state.get(f"alchemy:answer:{answer['id']}")
        assert service.http.get(f"/v1/answers/{answer['id']}").json()["answer"] == answer["answer"]


def test_over_http_conversations_are_made_renamed_taken_along_and_deleted(
    serve: Serve, valkey: Valkey
) -> None:
    people = [person("ann"), person("bob")]
    with serve(redis_url=valkey.url, users=people, ready=False) as service:
        http, ann = service.http, service.as_person("ann")
        first = http.post("/api/sessions", headers=ann).json()
        second = http.post("/api/sessions", json={"title": "\u0001网关"}, headers=ann).json()
        assert (first["title"], second["title"], first["messages"]) == ("", "\u0001网关", 0)
        renamed = http.patch(f"/api/sessions/{first['id']}", json={"title": "Retries"}, headers=ann)
        assert renamed.status_code == 204
        listed = http.get("/api/sessions", headers=ann).json()["sessions"]
        assert [one["title"] for one in listed] == ["\u0001网关", "Retries"]
        assert http.get(f"/api/sessions/{first['id']}", headers=ann).json()["messages"] == []
        export = http.get("/api/history", headers=ann)
        assert export.headers["content-type"].startswith("application/x-ndjson")
        assert [orjson.loads(line)["title"] for line in export.text.splitlines()] == ["\u0001网关", "Retries"]
        assert http.get("/api/history", headers=service.as_person("bob")).text == ""
        assert http.delete(f"/api/sessions/{first['id']}", headers=ann).status_code == 204
        assert http.delete(f"/api/sessions/{first['id']}", headers=ann).status_code == 404
        assert http.delete("/api/history", headers=ann).json() == {"deleted": 1}
        assert http.get("/api/sessions", headers=ann).json() == {"sessions": []}
