import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from alchemy.errors import Unavailable
from serving.answer import Answer, Usage
from serving.answers import AnswerRecord, Answers
from serving.people.sealing import Sealing
from serving.state import State
from serving.valkey import EmbeddedValkey
from tests.serving.conftest import Knowledge, Serve, Valkey, eventually

ANSWER = Answer(
    id="ans-1", release="r", created_at="2026-01-01", answer="网关", answerable=True, finalist="extractive",
    citations=[], intuition=None, degraded=[], seconds={"total": 0.1},
    usage=Usage(prompt_tokens=1, completion_tokens=1, counted_by="estimate"),
)  # fmt: skip
RECORD = AnswerRecord(answer=ANSWER, question="?", user="ann", tenant="default")


def test_lineage_survives_a_restart_of_service_and_state(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        answer = service.ask()
        assert answer["degraded"] == []
    valkey.kill()
    valkey.start()
    with serve(redis_url=valkey.url) as service:
        assert service.http.get(f"/v1/answers/{answer['id']}").json()["answer"] == answer["answer"]
        assert service.http.get(f"/v1/answers/{answer['id']}/lineage").status_code == 200


def test_answers_go_on_without_the_state_server_and_history_comes_back(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        kept = service.ask()
        assert kept["degraded"] == []
        valkey.kill()
        for _ in range(3):
            lost = service.ask()
            assert lost["answerable"]
            assert lost["degraded"] == ["history"]
        refused = service.http.get(f"/v1/answers/{kept['id']}/lineage")
        assert refused.status_code == 503
        assert "state server" in refused.json()["error"]["message"]
        ready = service.http.get("/readyz")
        assert ready.status_code == 200
        assert "state server" in ready.json()["problems"]["history"]
        assert 'degraded_total{feature="history"} 3.0' in service.metrics()
        valkey.start()
        eventually(lambda: service.ask()["degraded"] == [])
        assert service.http.get(f"/v1/answers/{kept['id']}/lineage").status_code == 200
        assert service.http.get(f"/v1/answers/{lost['id']}/lineage").status_code == 404
        assert "history" not in service.http.get("/readyz").json()["problems"]


def test_a_state_server_that_swallows_everything_costs_one_deadline_not_the_answer(
    knowledge: Knowledge, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.state._REST_S", 3600)
    knowledge.champion()
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(50)
        hole.setblocking(False)
        url = f"redis://127.0.0.1:{hole.getsockname()[1]}/0"
        with serve(redis_url=url, state_s=0.3) as service:
            answers = [service.ask() for _ in range(5)]
        assert all(answer["answerable"] and answer["degraded"] == ["history"] for answer in answers)
        hole.accept()[0].close()
        with pytest.raises(BlockingIOError):  # the other answers did not wait for it
            hole.accept()


def test_a_crowd_waits_for_a_connection_instead_of_losing_the_server(valkey: Valkey) -> None:
    async def crowd() -> None:
        state = State(valkey.url, deadline_s=30)
        await asyncio.gather(*(state.ping() for _ in range(500)))
        assert state.problem is None
        await state.close()

    asyncio.run(crowd())


def test_who_is_canceled_in_the_middle_of_a_call_does_not_go_on(valkey: Valkey) -> None:
    async def cancel_after(turns: int, state: State) -> bool:
        call = asyncio.create_task(state.ping())
        for _ in range(turns):
            await asyncio.sleep(0)
        if not call.cancel():
            return False
        await asyncio.wait([call])
        assert call.cancelled(), f"canceled after {turns} turns of the event loop, it went on"
        return True

    async def at_every_moment() -> None:
        state = State(valkey.url, deadline_s=30)
        await state.ping()
        canceled = [await cancel_after(turns, state) for turns in range(50)]
        assert canceled[:2] == [True, True]
        await state.ping()
        await state.close()

    asyncio.run(at_every_moment())


def test_an_answer_is_kept_for_its_time_only(valkey: Valkey) -> None:
    async def keep() -> None:
        state = State(valkey.url, deadline_s=10)
        answers = Answers(state, Sealing(), ttl_s=1)
        await answers.put(RECORD)
        assert await answers.get("ans-1") == RECORD
        await asyncio.sleep(1.2)
        assert await answers.get("ans-1") is None
        assert await answers.get("ans-unknown") is None
        await state.close()

    asyncio.run(keep())


def test_the_embedded_server_keeps_its_answers_between_two_starts(tmp_path: Path) -> None:
    async def put_and_get(url: str, put: bool) -> AnswerRecord | None:
        state = State(url, deadline_s=10)
        answers = Answers(state, Sealing(), ttl_s=60)
        try:
            if put:
                await answers.put(RECORD)
            return await answers.get("ans-1")
        finally:
            await state.close()

    for put in (True, False):
        server = EmbeddedValkey(tmp_path / "valkey")
        server.start()
        try:
            assert asyncio.run(put_and_get(server.url, put)) == RECORD
        finally:
            server.stop()


def test_a_second_process_uses_the_embedded_server_that_runs(tmp_path: Path) -> None:
    folder = tmp_path / ("deep-" * 20)  # longer than a socket's path may be
    first, second = EmbeddedValkey(folder), EmbeddedValkey(folder)
    first.start()
    try:
        second.start()
        second.stop()

        async def put() -> None:
            state = State(second.url, deadline_s=10)
            answers = Answers(state, Sealing(), ttl_s=60)
            await answers.put(RECORD)
            await state.close()

        asyncio.run(put())
    finally:
        first.stop()


class Other:
    """Another process that has the embedded server of a folder open, until it leaves."""

    def __init__(self, folder: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from serving.valkey import EmbeddedValkey\n"
            "valkey = EmbeddedValkey(Path(sys.argv[1])); valkey.start(); print('up', flush=True)\n"
            "sys.stdin.readline(); valkey.stop()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"

    def leave(self) -> None:
        self._process.communicate("\n", timeout=60)
        assert self._process.returncode == 0


def ask(url: str, put: str | None = None) -> tuple[str, str] | None:
    """The server's own id and what was put last; None while there is no server."""

    async def command(redis: Any) -> tuple[str, str]:
        if put is not None:
            await redis.set("said", put)
        said = await redis.get("said")
        return (await redis.info("server"))["run_id"], (said or b"").decode()

    async def call() -> tuple[str, str] | None:
        state = State(url, deadline_s=10)
        try:
            return await state.call(command)
        except Unavailable:
            return None
        finally:
            await state.close()

    return asyncio.run(call())


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "valkey")
    yield server
    server.stop()
    assert ask(server.url) is None


def test_a_server_that_leaves_with_who_started_it_is_started_again_by_who_still_uses_it(
    embedded: EmbeddedValkey, tmp_path: Path
) -> None:
    first = Other(tmp_path / "valkey")
    embedded.start()
    before = ask(embedded.url, put="kept")
    first.leave()
    eventually(lambda: (ask(embedded.url) or before) != before)
    assert ask(embedded.url) is not None
    assert ask(embedded.url)[1] == "kept"  # type: ignore[index]


def test_who_found_the_server_running_leaves_without_it(embedded: EmbeddedValkey, tmp_path: Path) -> None:
    embedded.start()
    before = ask(embedded.url, put="kept")
    Other(tmp_path / "valkey").leave()
    assert ask(embedded.url) == before


def test_of_all_who_notice_that_the_server_is_gone_one_starts_it(
    embedded: EmbeddedValkey, tmp_path: Path
) -> None:
    others = [Other(tmp_path / "valkey") for _ in range(2)]
    embedded.start()
    before = ask(embedded.url, put="kept")
    (server,) = servers(tmp_path)
    server.kill()
    eventually(lambda: (ask(embedded.url) or before) != before)
    time.sleep(2)  # for one that might still come
    assert len(servers(tmp_path)) == 1
    assert ask(embedded.url, put="kept still")
    for other in others:
        other.leave()
    eventually(lambda: (ask(embedded.url) or before)[1] == "kept still")


def servers(folder: Path) -> list[psutil.Process]:
    """The embedded servers of a folder that run."""
    running = psutil.process_iter(["cmdline"])
    return [
        each for each in running if str(folder) in " ".join(each.info["cmdline"] or ()).partition("unix")[2]
    ]


def test_an_unreachable_server_is_named_and_left_alone_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.state._REST_S", 3600)
    connections = []

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.close()

    async def ask() -> str:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            state = State(f"redis://127.0.0.1:{port}/0", deadline_s=10)
            with pytest.raises(Unavailable) as first:
                await state.ping()
            for _ in range(20):
                with pytest.raises(Unavailable):
                    await state.ping()
            await state.close()
            return str(first.value)

    assert "the state server fails" in asyncio.run(ask())
    assert len(connections) == 1
