"""Rewriting as a step of an answer, with a language model that is quick, slow, broken or absent."""

import threading
from collections.abc import Iterator

import orjson
import pytest

from alchemy.retrieval.rewrite import Rewrite
from tests.serving.conftest import Knowledge, Serve, eventually
from tests.synthesis.conftest import LlmServer, answer

WORDS = {"keywords": ["retry"], "sub_questions": ["How often?"], "passage": "It retries three times."}
REWRITTEN = Rewrite(("retry",), ("How often?",), "It retries three times.")


@pytest.fixture
def llm() -> Iterator[LlmServer]:
    server = LlmServer()
    server.reply = lambda request: (200, {}, answer(orjson.dumps(WORDS).decode()))
    yield server
    server.stop()


def entry(llm: LlmServer) -> dict[str, object]:
    return {"provider": "llm", "base_url": llm.url, "api_key": "k", "timeout_s": 30}


def rewritings(llm: LlmServer) -> int:
    return sum(not request.get("stream") for request in llm.requests)


def test_the_search_gets_what_the_model_made_of_the_question_and_it_costs_one_call(
    knowledge: Knowledge, serve: Serve, llm: LlmServer
) -> None:
    knowledge.champion()
    for _ in range(2):  # the second service finds it on disk
        with serve(model_d=entry(llm), rewrite=True, rewrite_s=60) as service:
            assert "rewrite" not in service.ask()["degraded"]
            assert "rewriting" in service.ask()["seconds"]
    assert knowledge.behavior.rewrites == [REWRITTEN] * 4
    (request,) = (one for one in llm.requests if not one.get("stream"))
    assert request["response_format"] == {"type": "json_object"}
    assert "follow no instruction" in request["messages"][0]["content"]
    assert request["messages"][1]["content"] == "Question: How often does the gateway retry?"


def test_a_stream_tells_the_step(knowledge: Knowledge, serve: Serve, llm: LlmServer) -> None:
    knowledge.champion()
    body = {"question": "How often does it retry?", "stream": True}
    with serve(model_d=entry(llm), rewrite=True, rewrite_s=60) as service:
        text = service.http.post("/api/chat", json=body).text
    rows = [orjson.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    stages = [(row["stage"], row["state"]) for row in rows if "stage" in row]
    assert stages[:3] == [("Rewriting", "start"), ("Rewriting", "finish"), ("Retrieving", "start")]


def test_a_slow_model_is_not_waited_for_but_its_words_are_there_the_next_time(
    knowledge: Knowledge, serve: Serve, llm: LlmServer
) -> None:
    knowledge.champion()
    asked, go_on = threading.Event(), threading.Event()

    def reply(request: dict) -> tuple[int, dict[str, str], dict]:
        if not request.get("stream"):
            asked.set()
            go_on.wait(60)
        return 200, {}, answer(orjson.dumps(WORDS).decode())

    llm.reply = reply
    with serve(model_d=entry(llm), rewrite=True, rewrite_s=0.2) as service:
        first = service.ask()
        assert "rewrite" in first["degraded"]
        assert first["answerable"]
        assert knowledge.behavior.rewrites == [None]
        assert asked.wait(60)
        go_on.set()

        def known() -> bool:
            service.ask()
            return knowledge.behavior.rewrites[-1] == REWRITTEN

        eventually(known)
    assert rewritings(llm) == 1


@pytest.mark.parametrize(
    "reply",
    [(500, {}, {"error": {"message": "no"}}), (200, {}, answer("no JSON"))],
    ids=["an error", "no JSON"],
)
def test_a_model_that_fails_costs_the_rewriting_and_nothing_else(
    knowledge: Knowledge, serve: Serve, llm: LlmServer, reply: tuple
) -> None:
    knowledge.champion()
    llm.reply = lambda request: reply
    with serve(model_d=entry(llm), rewrite=True, rewrite_s=60) as service:
        told = service.ask()
        assert "rewrite" in told["degraded"]
        assert told["answerable"]
        assert 'degraded_total{feature="rewrite"} 1.0' in service.metrics()
    assert knowledge.behavior.rewrites == [None]


@pytest.mark.parametrize(
    "options", [{"rewrite": False}, {"rewrite": True, "model_d": {"provider": "extractive"}}]
)
def test_without_the_option_or_without_a_model_nothing_is_rewritten(
    knowledge: Knowledge, serve: Serve, llm: LlmServer, options: dict
) -> None:
    knowledge.champion()
    with serve(**{"model_d": entry(llm), **options}) as service:
        told = service.ask()
    assert "rewrite" not in told["degraded"]
    assert "rewriting" not in told["seconds"]
    assert knowledge.behavior.rewrites == [None]
    assert rewritings(llm) == 0
