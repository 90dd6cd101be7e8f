"""What is lost when a dependency is, each while several people ask: the named feature and nothing else.

Every fault ends, and the test waits until the service shows that it noticed; `pytest -s` prints how long that
took. Nothing asserts a time but the clients' own limit, which is generous: no answer may hang.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from alchemy.artifacts import Artifacts
from alchemy.catalog import load_catalog
from alchemy.release import read_release
from alchemy.settings import Settings
from alchemy.store import Store
from serving.app import Parts, create_app
from serving.options import ServingOptions
from tests.conftest import S3Server
from tests.ports import free_ports
from tests.serving.conftest import Knowledge, Serve, Service, Valkey, eventually, running
from tests.serving.llm import Model
from tests.serving.proxies import Proxy, proxy
from tests.serving.test_loading import release as publish

ROOT = Path(__file__).parents[2]
ASKERS = 4
LIMIT_S = 90.0  # of one answer; every deadline of the service is far below


@dataclass
class Crowd:
    """Several people who ask again and again by HTTP."""

    url: str
    question: str = "How often does gateway {number} retry?"
    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ask_on(self, stop: threading.Event, who: int) -> None:
        with httpx.Client(base_url=self.url, timeout=LIMIT_S) as http:
            number = 0
            while not stop.is_set():
                number += 1
                question = self.question.format(number=f"{who}.{number}")
                try:
                    response = http.post("/api/chat", json={"question": question})
                    response.raise_for_status()
                    self.answers.append(response.json())
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    stop.wait(0.05)

    def hears(self, wanted: Callable[[dict[str, Any]], bool], times: int = ASKERS) -> list[dict[str, Any]]:
        """Waits for so many further answers that are as wanted; gives all that came meanwhile."""
        before = len(self.answers)
        eventually(lambda: sum(map(wanted, self.answers[before:])) >= times)
        return self.answers[before:]

    def hears_of(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The last such answer; one that was on its way before may still come between them."""
        return [answer for answer in self.hears(wanted) if wanted(answer)][-1]


@contextmanager
def crowd(url: str, **changes: str) -> Iterator[Crowd]:
    """People who ask until the block ends."""
    people, stop = Crowd(url, **changes), threading.Event()
    threads = [threading.Thread(target=people.ask_on, args=(stop, who)) for who in range(ASKERS)]
    for thread in threads:
        thread.start()
    try:
        yield people
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT_S + 10)
        assert not any(thread.is_alive() for thread in threads), "an answer hung"


def whole(answer: dict[str, Any]) -> bool:
    return answer["answerable"] and not answer["degraded"]


def lacks(*features: str) -> Callable[[dict[str, Any]], bool]:
    return lambda answer: answer["answerable"] and answer["degraded"] == list(features)


def problems(service: Service) -> dict[str, str]:
    ready = service.http.get("/readyz")
    assert ready.status_code == 200, "what is lost is named, not a reason to be unready"
    found: dict[str, str] = ready.json()["problems"]
    return found


def recovered(what: str, check: Callable[[], object]) -> None:
    """Waits for the recovery, and prints how long it took for who runs this by hand."""
    began = time.monotonic()
    eventually(check)
    print(f"\n    recovered from {what} within {time.monotonic() - began:.1f} s")


# -- the state server -----------------------------------------------------------------------------------


@contextmanager
def stopped(valkey: Valkey, _: Proxy) -> Iterator[None]:
    valkey.kill()
    yield
    valkey.start()


@contextmanager
def turned(mode: Any, between: Proxy) -> Iterator[None]:
    between.turn(mode)
    yield
    between.turn("pass")


STATE_FAULTS = {
    "stopped": stopped,
    "blackholed": lambda _, between: turned("swallow", between),
    "slow": lambda _, between: turned("slow", between),
}


@pytest.mark.parametrize("fault", STATE_FAULTS)
def test_a_lost_state_server_costs_history_alone(
    knowledge: Knowledge, serve: Serve, valkey: Valkey, fault: str
) -> None:
    knowledge.champion()
    with (
        proxy(valkey.port, delay_s=5) as between,
        serve(redis_url=f"redis://127.0.0.1:{between.port}/0", state_s=0.5) as service,
        crowd(service.url) as people,
    ):
        people.hears(whole)
        with STATE_FAULTS[fault](valkey, between):
            heard = people.hears(lacks("history"))
            assert all(answer["answerable"] for answer in heard)
            eventually(lambda: "state server" in problems(service).get("history", ""))
            eventually(lambda: 'alchemy_problem{part="history"} 1.0' in service.metrics())
        recovered(f"a state server {fault}", lambda: whole(people.answers[-1]))
        people.hears(whole)
        eventually(lambda: "history" not in problems(service))
    assert people.failures == []


# -- the object store -----------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["refuse", "swallow"])
def test_a_lost_object_store_costs_new_releases_alone(
    s3_server: S3Server, tmp_path: Path, serve: Serve, knowledge: Knowledge, fault: Any
) -> None:
    port = int(s3_server.endpoint.rpartition(":")[2])
    url = f"s3://{s3_server.bucket}/{os.urandom(6).hex()}"
    direct = Knowledge(Artifacts(Store(url, endpoint=s3_server.endpoint), tmp_path / "direct"))
    first = direct.champion("ALPHA")
    with proxy(port) as between:
        endpoint = f"http://127.0.0.1:{between.port}"
        knowledge.artifacts = Artifacts(Store(url, endpoint=endpoint, patience_s=1), tmp_path / "through")
        knowledge.markers = direct.markers
        with serve(redis_url="redis://127.0.0.1:1/0") as service, crowd(service.url) as people:
            people.hears(lacks("history"))
            between.turn(fault)
            second = direct.champion("BRAVO")
            eventually(lambda: "aliases cannot be read" in problems(service).get("release", ""))
            heard = people.hears(lacks("history"))
            assert {answer["release"] for answer in heard} == {first}
            eventually(lambda: 'alchemy_problem{part="release"} 1.0' in service.metrics())
            between.turn("pass")
            recovered(f"an object store in mode {fault}", lambda: people.answers[-1]["release"] == second)
            eventually(lambda: "release" not in problems(service))
    assert people.failures == []


# -- the language model ---------------------------------------------------------------------------------


def overloaded(model: Model) -> None:
    model.status = 500


def rate_limited(model: Model) -> None:
    model.status = 429


def hanging(model: Model) -> None:
    model.silent_after = 0


def stalling(model: Model) -> None:
    model.silent_after = 2


def crawling(model: Model) -> None:
    model.pace_s = 3.0


@pytest.mark.parametrize("fault", [overloaded, rate_limited, hanging, stalling, crawling])
def test_a_lost_language_model_costs_its_words_and_leaves_quotes(
    knowledge: Knowledge, serve: Serve, valkey: Valkey, model: Model, fault: Callable[[Model], None]
) -> None:
    knowledge.champion()
    limits = {"first_token_s": 1.0, "stall_s": 1.0}
    with serve(redis_url=valkey.url, model_d=model.entry, **limits) as service:
        eventually(lambda: whole(service.ask()))  # litellm takes seconds to load, the first time
        with crowd(service.url) as people:
            people.hears(whole)
            fault(model)
            lost = people.hears_of(lacks("finalist"))
            assert "The knowledge base says" in lost["answer"]
            assert lost["citations"]
            assert 'degraded_total{feature="finalist"}' in service.metrics()
            model.status, model.silent_after, model.pace_s = 200, None, 0.0
            recovered(f"a model {fault.__name__}", lambda: whole(people.answers[-1]))
            people.hears(whole)
    assert people.failures == []


# -- a release that is damaged --------------------------------------------------------------------------


@contextmanager
def damaged(artifacts: Artifacts, asset: str, version: str, file: str) -> Iterator[None]:
    """One byte of a published file is another one."""
    key = f"{artifacts.get(asset, version).folder}/{file}"
    good = artifacts.store.get(key)
    artifacts.store.put(key, bytes([good[0] ^ 1]) + good[1:])
    yield
    artifacts.store.put(key, good)


@pytest.mark.integration
def test_a_damaged_index_leaves_the_old_release_serving_and_a_damaged_adapter_costs_intuition_alone(
    knowledge: Knowledge, tmp_path: Path
) -> None:
    """On real parts: index, models and adapter as the loader takes them."""
    artifacts, catalog = knowledge.artifacts, load_catalog(ROOT / "models.yaml")
    settings = Settings(
        store=str(tmp_path / "store"),
        cache=tmp_path / "cache",
        models=ROOT / "data" / "models",
        redis_url="redis://127.0.0.1:1/0",
    )
    options = ServingOptions(
        follow_s=0.2, load_retry_s=1, intuition_tokens=2, intuition_grace_s=30, search_s=30, canary_s=0
    )
    first = publish(knowledge, catalog, {}, adapter=True)
    adapter = read_release(artifacts, first).adapters["lora_adapter"]
    with running(create_app(settings, catalog, Parts(artifacts, options=options))) as service:
        eventually(lambda: service.http.get("/readyz").status_code == 200, 120)
        with crowd(service.url, question="How often is a failed delivery retried?") as people:
            people.hears(lacks("history"))
            second = publish(knowledge, catalog, {"jira:HAUL-9": "Another text."}, adapter=True, serve=False)
            index = read_release(artifacts, second).index
            with damaged(artifacts, "faiss_index", index, "vectors.faiss"):
                knowledge.promote(second)
                eventually(lambda: "not what was published" in problems(service).get("release", ""))
                assert {answer["release"] for answer in people.hears(lacks("history"))} == {first}
                eventually(lambda: 'alchemy_problem{part="release"} 1.0' in service.metrics())
            recovered("a damaged index", lambda: people.answers[-1]["release"] == second)
            eventually(lambda: "release" not in problems(service))
            with damaged(artifacts, "lora_adapter", adapter, "adapter_model.safetensors"):
                knowledge.promote(first)
                lost = people.hears_of(lacks("intuition", "history"))
                assert (lost["release"], lost["intuition"]) == (first, None)
                assert "intuition of lora_adapter" in problems(service)["parts"]
            recovered("a damaged adapter", lambda: people.answers[-1]["degraded"] == ["history"])
            assert "parts" not in problems(service)
        assert people.failures == []


# -- the process ----------------------------------------------------------------------------------------


@dataclass
class Supervised:
    """`python -m tests.serving.sentinel`, started again whenever it dies, as a supervisor does."""

    arguments: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tests.serving.sentinel", *self.arguments]
            self.process = subprocess.Popen(command, stderr=log, cwd=ROOT)

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def supervised(arguments: list[str], log: Path) -> Iterator[Supervised]:
    one = Supervised(arguments, log)
    one.start()
    try:
        yield one
    finally:
        one.kill()


def ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_killed_process_loses_no_answer_that_it_gave(
    knowledge: Knowledge, valkey: Valkey, tmp_path: Path
) -> None:
    champion, (port,) = knowledge.champion("ALPHA"), free_ports(1)
    url = f"http://127.0.0.1:{port}"
    arguments = [str(tmp_path / "store"), champion, valkey.url, str(port)]
    with (
        supervised(arguments, tmp_path / "log") as service,
        httpx.Client(base_url=url, timeout=LIMIT_S) as http,
    ):
        eventually(lambda: ready(http))
        with crowd(url) as people:
            people.hears(whole)
            service.kill()
            eventually(lambda: people.failures)
            given = list(people.answers)
            service.start()
            recovered("kill -9", lambda: len(people.answers) > len(given))
            people.hears(whole)
        for answer in given:
            kept = http.get(f"/v1/answers/{answer['id']}")
            assert kept.status_code == 200, kept.text
            assert kept.json()["answer"] == answer["answer"]


def test_a_full_disk_for_logs_costs_log_lines_alone(
    knowledge: Knowledge, valkey: Valkey, tmp_path: Path
) -> None:
    champion, (port,) = knowledge.champion("ALPHA"), free_ports(1)
    url, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    arguments = [str(tmp_path / "store"), champion, valkey.url, str(port)]
    with supervised(arguments, log) as one, httpx.Client(base_url=url, timeout=LIMIT_S) as http:
        eventually(lambda: ready(http))
        assert one.process
        with crowd(url) as people:
            people.hears(whole)
            resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            eventually(lambda: "log" in http.get("/readyz").json()["problems"])
            assert http.get("/readyz").status_code == 200
            people.hears(whole)
            size = log.stat().st_size
            assert 'alchemy_problem{part="log"} 1.0' in http.get("/metrics").text
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, unlimited)
            recovered("a full disk", lambda: "log" not in http.get("/readyz").json()["problems"])
            eventually(lambda: log.stat().st_size > size)
        assert people.failures == []
