import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from serving.watching.logs import Handler, JsonFormatter, lines_lost, log_problem
from tests.serving.conftest import Knowledge, Serve


@contextmanager
def logging_to(stream: Any) -> Iterator[Handler]:
    """The service's handler at the root, as `log_config` puts it there."""
    handler, root = Handler(), logging.getLogger()
    handler.setFormatter(JsonFormatter())
    handler.setStream(stream)
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    """The parsed log, filled when the test's service has ended."""
    caplog.set_level("INFO", "serving")
    stream, rows = io.StringIO(), []

    class Rows(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter([orjson.loads(line) for line in stream.getvalue().splitlines()])

    rows = Rows()
    with logging_to(stream):
        yield rows


def test_every_line_of_a_request_names_the_request_and_its_answer(
    knowledge: Knowledge, serve: Serve, lines: list[dict[str, Any]]
) -> None:
    knowledge.champion()

    def fail(_: str) -> None:
        logging.getLogger("serving.test").warning("in a thread of the search")
        raise RuntimeError("disk gone")

    knowledge.behavior.search = fail
    with serve() as service:
        response = service.http.post("/api/chat", json={"question": "?"}, headers={"X-Request-Id": "abc-1"})
        assert response.headers["x-request-id"] == "abc-1"
    mine = [row for row in lines if row.get("request") == "abc-1"]
    assert {row["answer"] for row in mine} == {response.json()["id"]}
    assert {row["message"] for row in mine} >= {"in a thread of the search", "retrieval failed", "answer"}


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", 'a"b', "é"])
def test_an_id_that_is_not_sane_is_replaced(knowledge: Knowledge, serve: Serve, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given.encode()}
    with serve(ready=False) as service:
        named = [service.http.get("/healthz", headers=headers).headers["x-request-id"] for _ in range(2)]
    assert len(set(named)) == 2
    assert all(one.startswith("req-") for one in named)


def test_a_fault_of_ours_names_its_request_too(
    knowledge: Knowledge, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    knowledge.champion()
    with serve() as service:
        monkeypatch.setattr("serving.routes.embeddings_api.usage", lambda *_: 1 / 0)
        response = service.http.post("/v1/embeddings", json={"input": "?"})
    assert response.status_code == 500
    assert response.headers["x-request-id"].startswith("req-")


def test_lines_that_cannot_be_written_are_counted_until_one_can(knowledge: Knowledge, serve: Serve) -> None:
    class Disk(io.StringIO):
        full = False

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    disk, log = Disk(), logging.getLogger("serving.test")
    knowledge.champion()
    with logging_to(disk), serve() as service:
        log.warning("written")
        disk.full = True
        log.warning("lost")
        lost = lines_lost()
        assert lost >= 1
        ready = service.http.get("/readyz")
        assert ready.status_code == 200
        assert "No space left" in ready.json()["problems"]["log"]
        assert service.ask()["answerable"]
        assert 'alchemy_problem{part="log"} 1.0' in service.metrics()
        disk.full = False
        log.warning("written again")
        assert log_problem() is None
        assert "log" not in service.http.get("/readyz").json()["problems"]
        assert f"log_lines_lost_total {float(lines_lost())}" in service.metrics()
    assert "written again" in disk.getvalue()
