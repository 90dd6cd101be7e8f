import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from alchemy.retrieval.index import Filters as Limits
from tests.serving.conftest import QUOTED, Knowledge, Serve, eventually

QUESTION = "How often does the gateway retry?"


def events(response: httpx.Response) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(id, event, data) of a stream of server-sent events."""
    row: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            row[name] = value
        elif row:
            yield int(row["id"]), row["event"], orjson.loads(row["data"])
            row = {}


def test_an_answer_quotes_cites_and_names_its_release(knowledge: Knowledge, serve: Serve) -> None:
    champion = knowledge.champion("ALPHA")
    with serve() as service:
        answer = service.ask()
    assert answer["release"] == champion
    assert answer["answerable"] is True
    assert answer["answer"] == QUOTED
    (citation,) = answer["citations"]
    assert citation["document_id"] == "jira:ALPHA-1"
    assert (citation["start"], citation["end"]) == (100, 100 + len(citation["quote"]))
    assert citation["raw_key"] == "raw/jira/jira:ALPHA-1.json"
    assert answer["seconds"]["total"] > 0


def test_intuition_stands_beside_the_answer_unverified(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion("ALPHA")
    with serve() as service:
        answer = service.ask()
        assert answer["intuition"] == {
            "text": "I recall ALPHA.",
            "adapter": "lora_adapter",
            "verified": False,
        }
        assert "I recall" not in answer["answer"]
        assert service.ask(intuition=False)["intuition"] is None
    with serve(intuition=False) as service:
        answer = service.ask()
        assert answer["intuition"] is None
        assert "intuition" not in answer["degraded"]


@pytest.mark.parametrize(
    ("question", "says"),
    [("Who lives on the moon?", "not in the knowledge base"), ("谁住在月球上？", "知识库中没有")],
)
def test_an_unanswerable_question_is_declined_in_its_language(
    knowledge: Knowledge, serve: Serve, question: str, says: str
) -> None:
    knowledge.champion()
    with serve() as service:
        answer = service.ask(question)
    assert says in answer["answer"]
    assert (answer["answerable"], answer["citations"], answer["intuition"]) == (False, [], None)


def test_without_a_champion_the_service_says_so_and_answers_from_nothing(
    knowledge: Knowledge, serve: Serve
) -> None:
    with serve(ready=False) as service:
        eventually(lambda: "champion" in service.http.get("/readyz").json()["problems"].get("release", ""))
        assert service.http.get("/readyz").status_code == 503
        assert service.http.get("/healthz").status_code == 200
        answer = service.ask()
        assert (answer["release"], answer["answerable"], answer["citations"]) == (None, False, [])
        assert "No knowledge base has been released" in answer["answer"]
        assert "尚未发布" in service.ask("网关重试几次？")["answer"]
        champion = knowledge.champion()
        service.wait_for(champion)
        assert service.ask()["answerable"]


def test_options_and_filters_reach_the_search(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    with serve() as service:
        filters = {"sources": ["jira"], "projects": ["HAUL"], "kinds": ["issue"], "until": "2024-03-01"}
        service.ask(top_k=3, filters=filters)
    assert knowledge.behavior.search_options[-1].top_k == 3
    limits = knowledge.behavior.filters[-1]
    assert limits == Limits(("jira",), ("HAUL",), ("issue",), "", "2024-03-01")


def test_an_answer_tells_which_filters_held_and_which_were_given_up(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.champion()
    knowledge.behavior.searched = (Limits(sources=("jira",)), Limits(kinds=("commit",), since="2024-03-01"))
    with serve() as service:
        answer = service.ask()
    nothing = {"sources": [], "projects": [], "kinds": [], "since": None, "until": None}
    assert answer["filters"] == nothing | {"sources": ["jira"]}
    assert answer["dropped"] == nothing | {"kinds": ["commit"], "since": "2024-03-01"}


def test_a_stream_tells_every_step_and_ends_with_the_whole_answer(knowledge: Knowledge, serve: Serve) -> None:
    champion = knowledge.champion("ALPHA")
    body = {"question": QUESTION, "stream": True}
    with serve() as service, service.http.stream("POST", "/api/chat", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        rows = list(events(response))
    assert [number for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert [name for _, name, _ in rows if name != "status"] == [
        "started", "sources", "token", "citation", "usage", "done"
    ]  # fmt: skip
    assert [(data["stage"], data["state"]) for _, name, data in rows if name == "status"] == [
        ("Retrieving", "start"),
        ("Consulting", "start"),
        ("Retrieving", "finish"),
        ("Fusing", "start"),
        ("Fusing", "finish"),
        ("Consulting", "finish"),
    ]
    done = rows[-1][2]["answer"]
    assert rows[0][2] == {"id": done["id"], "release": champion}
    assert "".join(data["text"] for _, name, data in rows if name == "token") == done["answer"]
    assert [data["citation"] for _, name, data in rows if name == "citation"] == done["citations"]


def test_retrieval_and_intuition_run_at_the_same_time(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    both = threading.Barrier(2, timeout=60)
    knowledge.behavior.search = lambda _: both.wait()
    knowledge.behavior.speak = lambda _: both.wait()
    with serve() as service:
        answer = service.ask()
    assert answer["answerable"]
    assert "degraded" in answer and "intuition" not in answer["degraded"]


def test_quotes_do_not_wait_for_the_intuition(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion("ALPHA")
    quoted = threading.Event()
    knowledge.behavior.speak = lambda _: quoted.wait(60)
    body = {"question": QUESTION, "stream": True}
    with serve() as service, service.http.stream("POST", "/api/chat", json=body) as response:
        for _, name, data in events(response):
            if name == "citation":
                quoted.set()  # with it still on its way, the whole answer is there to be read
            elif name == "done":
                answer = data["answer"]
    assert answer["intuition"]["text"] == "I recall ALPHA."
    assert answer["degraded"] == ["history"]


def test_slow_intuition_is_left_behind_and_stopped(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    knowledge.behavior.speak = lambda stop: stop.wait(120)
    with serve(intuition_grace_s=0.1) as service:
        answer = service.ask()
        assert answer["answerable"]
        assert answer["intuition"] is None
        assert "intuition" in answer["degraded"]
        assert knowledge.behavior.stopped.wait(60)
        assert 'degraded_total{feature="intuition"} 1.0' in service.metrics()


def test_failing_intuition_costs_only_itself(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()

    def fail(_: threading.Event) -> None:
        raise RuntimeError("no memory")

    knowledge.behavior.speak = fail
    with serve() as service:
        answer = service.ask()
        declined = service.ask("Who lives on the moon?")
    assert answer["answerable"]
    assert "intuition" in answer["degraded"]
    assert not declined["answerable"]


@pytest.mark.parametrize("fault", ["error", "hang"])
def test_a_failed_search_is_said_and_nothing_is_made_up(
    knowledge: Knowledge, serve: Serve, fault: str
) -> None:
    knowledge.champion()
    release = threading.Event()

    def fail(_: str) -> None:
        if fault == "error":
            raise RuntimeError("disk gone")
        release.wait(120)

    knowledge.behavior.search = fail
    with serve(search_s=0.2) as service:
        answer = service.ask()
        release.set()
    assert "cannot be searched" in answer["answer"]
    assert (answer["answerable"], answer["citations"], answer["intuition"]) == (False, [], None)
    assert "retrieval" in answer["degraded"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_cancels_its_work(knowledge: Knowledge, serve: Serve, stream: bool) -> None:
    knowledge.champion()
    started = threading.Event()

    def speak(stop: threading.Event) -> None:
        started.set()
        stop.wait(120)

    knowledge.behavior.speak = speak
    with serve(intuition_grace_s=120) as service:
        with (
            pytest.raises(httpx.ReadTimeout),
            service.http.stream(
                "POST", "/api/chat", json={"question": QUESTION, "stream": stream}, timeout=2
            ) as response,
        ):
            response.read()
        assert started.is_set()
        assert knowledge.behavior.stopped.wait(60)
        eventually(lambda: "questions_in_flight 0.0" in service.metrics())
        assert 'answers_total{outcome="canceled"} 1.0' in service.metrics()


def test_more_questions_than_allowed_are_turned_away_at_once(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    go = threading.Event()
    knowledge.behavior.search = lambda _: go.wait(120)
    with serve(max_concurrent=1, search_s=120) as service:
        first = threading.Thread(target=service.ask)
        first.start()
        eventually(lambda: "questions_in_flight 1.0" in service.metrics())
        refused = service.http.post("/api/chat", json={"question": QUESTION})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert first.is_alive()
        go.set()
        first.join()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"question": ""},
        {"question": "   "},
        {"question": "x" * 4001},
        {"question": "x", "top_k": 0},
        {"question": "x", "filters": {"sources": ["nowhere"]}},
        {"question": "x", "unknown": 1},
    ],
)
def test_a_wrong_request_is_refused_with_a_reason(knowledge: Knowledge, serve: Serve, body: Any) -> None:
    with serve(ready=False) as service:
        response = service.http.post("/api/chat", json=body)
        assert response.status_code == 422
        assert response.json()["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_fault_of_ours_is_told_without_details(knowledge: Knowledge, serve: Serve, stream: bool) -> None:
    knowledge.champion()
    load = knowledge.load
    knowledge.load = lambda release_id: replace(load(release_id), search=lambda *_: "secret")  # type: ignore
    with serve() as service:
        response = service.http.post("/api/chat", json={"question": QUESTION, "stream": stream})
        eventually(lambda: 'answers_total{outcome="failed"} 1.0' in service.metrics())
    assert "it is in the log" in response.text
    assert "secret" not in response.text
    if stream:
        assert "event: error" in response.text
    else:
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "server_error"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


def test_metrics_have_the_contracts_names(knowledge: Knowledge, serve: Serve) -> None:
    champion = knowledge.champion()
    with serve() as service:
        service.ask()
        service.http.get("/v1/models")
        service.http.get("/v1/answers/ans-1")
        service.http.get("/no/such/path")
        text = service.metrics()
    for line in (
        'inference_latency_seconds_count{route="/api/chat"} 1.0',
        'stage_seconds_count{stage="retrieving"} 1.0',
        'stage_seconds_count{stage="fusing"} 1.0',
        "retrieval_relevance_count 1.0",
        f'release_info{{release="{champion}"}} 1.0',
        'gpu_memory_usage_bytes{device="',
        'answers_total{outcome="answered"} 1.0',
        'http_requests_total{route="/api/chat",status="200"} 1.0',
        'http_requests_total{route="/v1/models",status="200"} 1.0',
        'http_requests_total{route="/v1/answers/{answer_id}",status="503"} 1.0',
        'http_requests_total{route="other",status="404"} 1.0',
    ):
        assert line in text


def test_logs_name_answer_and_release_but_not_the_question(
    knowledge: Knowledge, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    champion = knowledge.champion()
    caplog.set_level("INFO", "serving")
    with serve() as service:
        answer = service.ask("How often does the secret gateway retry?")
    (record,) = [record for record in caplog.records if record.message == "answer"]
    assert (record.answer, record.release) == (answer["id"], champion)  # type: ignore[attr-defined]
    assert "secret gateway" not in " ".join(str(vars(record)) for record in caplog.records)
