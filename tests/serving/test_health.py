import asyncio
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from alchemy.artifacts import Artifacts, Request
from alchemy.evaluation.report import REPORT
from alchemy.records import SftPair, fingerprint, to_line
from serving.watching.health import MEASURES, Canary, LoopLag, read_facts
from serving.watching.metrics import Metrics, hub_overhead
from tests.serving.conftest import Knowledge, Serve, eventually

FOUND, MISSED = "How often does the gateway retry?", "Who wrote the gateway?"


def judged_release(knowledge: Knowledge, marker: str = "ALPHA") -> str:
    """A release with data from a raw listing, held-out questions and an evaluation of them."""
    artifacts = knowledge.artifacts

    def put(asset: str, files: dict[str, bytes], **inputs: str) -> str:
        def build(folder: Path) -> dict[str, Any]:
            for name, data in files.items():
                (folder / name).write_bytes(data)
            return {}

        return artifacts.materialize(Request(asset, inputs, "1"), build).artifact.version

    document = f"jira:{marker}-1"
    pairs = [
        SftPair(f"p{n}", text, "r", "q", "c", document, "holdout", "fact", "template")
        for n, text in enumerate((FOUND, MISSED))
    ]
    held = put("sft_pairs", {"sft_holdout.jsonl": b"".join(map(to_line, pairs))})
    scores = {
        fingerprint(text, (document,)): {"recall_at_5": found}
        for text, found in ((FOUND, 1.0), (MISSED, 0.0))
    }
    means = {name: {"mean": 0.75, "low": 0.7, "high": 0.8} for name in MEASURES}
    report = {"judged": {"sft_pairs": held}, "retrieval": means, "by_question": scores}
    evaluation = put("evaluation", {REPORT: orjson.dumps(report)}, sft_pairs=held)
    raw = put("raw/jira", {"objects.jsonl": b"{}\n"})
    corpus = put("cleaned_corpus", {"documents.jsonl": b"{}\n"}, **{"raw/jira": raw})
    chunks = put("rag_chunks", {"chunks.jsonl": marker.encode()}, cleaned_corpus=corpus)
    index = put("faiss_index", {"index": marker.encode()}, rag_chunks=chunks)
    return knowledge.release(marker, index=index, evaluation=evaluation)


def test_the_store_knows_how_old_and_how_good_a_release_is(knowledge: Knowledge) -> None:
    release = judged_release(knowledge)
    artifacts = knowledge.artifacts
    facts = read_facts(artifacts, release)
    assert facts.released_at == artifacts.get("release", release).created_at
    assert facts.data_at == artifacts.latest("raw/jira").created_at
    assert facts.evaluated == dict.fromkeys(MEASURES, 0.75)
    assert facts.canaries == (Canary(FOUND, "jira:ALPHA-1"),)


def test_a_release_without_evaluation_or_listing_has_nothing_to_say(knowledge: Knowledge) -> None:
    facts = read_facts(knowledge.artifacts, knowledge.release("ALPHA"))
    assert (facts.data_at, facts.evaluated, facts.canaries) == (None, {}, ())


def test_readiness_tells_of_service_model_data_and_search(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.promote(judged_release(knowledge))
    with serve(canary_s=0.05) as service:
        eventually(lambda: service.http.get("/readyz").json()["search"]["canary_found"])
        body = service.http.get("/readyz").json()
        text = service.metrics()
    assert body["service"]["up_s"] >= 0
    assert body["model"] == {
        "base_model": "no such base",
        "embedder": "e",
        "reranker": "r",
        "adapters": ["lora_adapter"],
    }
    assert 0 <= body["data"]["release_age_s"] <= body["data"]["data_age_s"] < 3600
    assert body["search"]["evaluated"] == dict.fromkeys(MEASURES, 0.75)
    assert set(body["problems"]) == {"history"}
    assert FOUND not in str(body)
    for line in (
        "alchemy_ready 1.0",
        'alchemy_problem{part="history"} 1.0',
        'alchemy_problem{part="search"} 0.0',
        "search_canary_found 1.0",
        'search_quality{measure="recall_at_5"} 0.75',
        'alchemy_age_seconds{of="data"}',
        "event_loop_lag_seconds ",
        "process_threads ",
        "process_open_fds ",
    ):
        assert line in text


def test_a_search_that_lost_what_it_found_is_named_and_serves_on_until_it_finds_it_again(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.promote(judged_release(knowledge))

    def fail(_: str) -> None:
        raise RuntimeError("index unreadable")

    with serve(canary_s=0.05) as service:
        eventually(lambda: service.http.get("/readyz").json()["search"]["canary_found"])
        knowledge.behavior.search = fail
        eventually(lambda: "search" in service.http.get("/readyz").json()["problems"])
        assert service.http.get("/readyz").status_code == 200
        eventually(lambda: "search_canary_found 0.0" in service.metrics())
        knowledge.behavior.search = lambda _: None
        eventually(lambda: "search" not in service.http.get("/readyz").json()["problems"])


def test_a_search_that_finds_another_document_is_named(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.promote(judged_release(knowledge))
    load = knowledge.load
    other = load(knowledge.release("BRAVO"))
    knowledge.load = lambda release: replace(load(release), search=other.search)  # type: ignore[method-assign]
    with serve(canary_s=0.05) as service:
        eventually(lambda: "search" in service.http.get("/readyz").json()["problems"])


def test_old_data_is_named_stale_and_served(knowledge: Knowledge, serve: Serve) -> None:
    release = judged_release(knowledge)
    age_listing(knowledge.artifacts, timedelta(days=9))
    knowledge.promote(release)
    with serve(canary_s=0) as service:
        eventually(lambda: "data" in service.http.get("/readyz").json()["problems"])
        ready = service.http.get("/readyz")
        assert ready.status_code == 200
        assert "9.0 days old, over 7.0" in ready.json()["problems"]["data"]
        assert service.ask()["answerable"]


def age_listing(artifacts: Artifacts, by: timedelta) -> None:
    """Makes the raw listing look as if it had been made then."""
    key = f"listings/jira/{artifacts.latest('raw/jira').version}/manifest.json"
    row = orjson.loads(artifacts.store.get(key))
    row["created_at"] = (datetime.now(UTC) - by).isoformat()
    artifacts.store.put(key, orjson.dumps(row))


def test_a_blocked_event_loop_shows() -> None:
    async def block() -> float:
        lag = LoopLag()
        measuring = asyncio.create_task(lag.run())
        await asyncio.sleep(0)
        time.sleep(0.5)
        await asyncio.sleep(0.2)
        measuring.cancel()
        return lag.worst()

    assert asyncio.run(block()) > 0.3


def test_overhead_is_what_was_not_spent_waiting_for_the_language_model() -> None:
    assert hub_overhead({"total": 0.5, "waiting": 0.3}) == pytest.approx(0.2)
    assert hub_overhead({"total": 0.5}) is None
    metrics = Metrics()
    metrics.spent({"retrieving": 0.1, "waiting": 0.3, "total": 0.304})
    assert 'hub_overhead_seconds_bucket{le="0.005"} 1.0' in metrics.text().decode()


CLOSED = {
    "status": {"200", "401", "404", "405", "413", "422", "499", "500", "503"},
    "outcome": {"answered", "declined", "canceled", "failed"},
    "part": {
        "release",
        "parts",
        "history",
        "data",
        "search",
        "log",
        "feedback",
        "audit",
        "revocation",
        "rag",
        "engine",
        "cache",
    },
    "measure": set(MEASURES),
    "result": {"found", "missed"},
    "of": {"release", "data"},
    "tier": {"exact", "semantic"},
    "bound": {"estimate", "low", "high"},
}


def test_odd_requests_make_no_new_labels(knowledge: Knowledge, serve: Serve) -> None:
    champion = knowledge.champion()
    odd = "x" * 50
    with serve() as service:
        http = service.http
        for path in (
            f"/{odd}",
            f"/v1/answers/{odd}",
            f"/v1/{odd}?{odd}={odd}",
            "//",
            "/%00",
            "/v1/models/../x",
        ):
            http.get(path)
        http.request(odd.upper(), "/api/chat")
        http.post("/api/chat", json={"question": odd, odd: odd}, headers={"X-Request-Id": odd})
        http.post("/api/chat", content=b"\xff", headers={"Content-Type": odd})
        http.post("/v1/chat/completions", json={"model": odd, "messages": [{"role": "user", "content": odd}]})
        http.post("/v1/embeddings", json={"model": odd, "input": odd})
        service.ask(odd, filters={"projects": [odd], "kinds": [odd[:40]]})
        text = service.metrics()
        routes = {getattr(route, "path", "") for route in service.app.routes}
        routes |= set(service.app.openapi()["paths"]) | {"other", "/metrics"}
    assert odd not in text.lower()
    for name, value in re.findall(r'(\w+)="([^"]*)"', text):
        if name == "route":
            assert value in routes
        elif name == "release":
            assert value == champion
        elif name in CLOSED:
            assert value in CLOSED[name], f'{name}="{value}"'
