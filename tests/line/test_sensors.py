"""The sensors as the daemon runs them: its own ticks on a real instance, over an S3 server and a folder."""

import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dagster import DagsterInstance
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorTick, SensorInstigatorData, TickStatus
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration

from alchemy.settings import Settings
from alchemy.store import Store
from tests.conftest import S3Server
from tests.line.running import DAGSTER_YAML, ROOT, quiet
from tests.ports import free_ports

pytestmark = pytest.mark.integration

COMMIT = b'{"sha": "%040d", "message": "Speed up the rollup", "author": {"name": "A"}}\n'
SENSOR = "raw_objects"


class Link:
    """A TCP connection to a server that can be cut and mended: the client sees one fixed address."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self._port = free_ports(1)[0]
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        listener, self._listener = self._listener, None
        if listener:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@dataclass
class Daemon:
    """The sensor daemon of one instance over one code location; `tick` evaluates every sensor once."""

    instance: DagsterInstance
    workspace: WorkspaceProcessContext
    now: datetime

    def tick(self) -> InstigatorTick:
        """The next tick, a minute later. Both sensors are evaluated; that of `raw_objects` is returned."""
        self.now += timedelta(minutes=1)
        futures: dict[str, object] = {}
        with quiet(), freeze_time(self.now):
            with ThreadPoolExecutor(2) as pool:
                iteration = execute_sensor_iteration(
                    self.workspace,
                    logging.getLogger("sensors"),
                    pool,
                    submit_threadpool_executor=None,
                    sensor_tick_futures=futures,
                )
                assert list(iteration)
            return self.last(SENSOR)

    def last(self, name: str) -> InstigatorTick:
        state = self._state(name)
        ticks = self.instance.get_ticks(state.origin.get_id(), state.selector_id, limit=1)
        return ticks[0]

    def cursor(self) -> str | None:
        data = self._state(SENSOR).instigator_data
        assert isinstance(data, SensorInstigatorData)
        return data.cursor

    def runs(self) -> int:
        return self.instance.get_runs_count()

    def _state(self, name: str):
        states = self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        return next(one for one in states if one.instigator_name == name)


@contextmanager
def daemon_over(settings: Settings, folder: Path) -> Iterator[Daemon]:
    """A daemon with the project's `dagster.yaml`: runs are queued, and nothing takes them off the queue."""
    home = folder / "dagster"
    home.mkdir()
    shutil.copyfile(DAGSTER_YAML, home / "dagster.yaml")
    code = folder / "code_location.py"
    values = settings.model_dump(mode="json", include={"store", "s3_endpoint", "cache", "models", "catalog"})
    code.write_text(
        "from alchemy.settings import Settings\n"
        "from dagster_project.build import build_definitions\n"
        f"defs = build_definitions(Settings(**{values!r}))\n",
        encoding="utf-8",
    )
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file=str(code)), location_name="line")
    with (
        quiet(),
        DagsterInstance.from_config(str(home)) as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace,
    ):
        yield Daemon(instance, workspace, datetime.now(UTC))


@pytest.fixture
def link(s3_server: S3Server) -> Iterator[Link]:
    link = Link(s3_server.endpoint)
    yield link
    link.cut()


def settings_of(store: str, folder: Path, endpoint: str | None = None) -> Settings:
    return Settings(
        store=store,
        s3_endpoint=endpoint,
        cache=folder / "cache",
        models=folder / "models",
        catalog=ROOT / "models.yaml",
    )


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """A fresh prefix on the S3 server."""
    return f"s3://{s3_server.bucket}/{os.urandom(6).hex()}"


def requested(tick: InstigatorTick) -> int:
    return len(tick.run_ids)


def test_an_uploaded_object_starts_exactly_one_run(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    store = Store(bucket, endpoint=s3_server.endpoint)
    with daemon_over(settings_of(bucket, tmp_path, s3_server.endpoint), tmp_path) as daemon:
        assert daemon.tick().status == TickStatus.SKIPPED
        store.put("raw/git/log.jsonl", COMMIT % 1)
        tick = daemon.tick()
        assert (tick.status, requested(tick)) == (TickStatus.SUCCESS, 1)
        run = daemon.instance.get_runs()[0]
        assert run.job_name == "full_cycle"
        assert run.tags["alchemy/changed"] == "git"
        assert run.tags["alchemy/line"] == "main"
        assert daemon.tick().status == TickStatus.SKIPPED  # nothing new
        store.put("raw/git/log.jsonl", COMMIT % 1)
        assert daemon.tick().status == TickStatus.SKIPPED  # the same content again
        store.put("raw/git/log.jsonl", COMMIT % 2)
        assert requested(daemon.tick()) == 1  # other content under the same key
        store.put("raw/git/log.jsonl", COMMIT % 1)
        assert requested(daemon.tick()) == 1  # back to the first content: a change all the same
        assert daemon.runs() == 3
        assert daemon.last("feedback").status == TickStatus.SKIPPED


def test_many_objects_between_two_ticks_share_one_run(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    store = Store(bucket, endpoint=s3_server.endpoint)
    for number in range(30):
        store.put(f"raw/git/{number}.jsonl", COMMIT % number)
    store.put("raw/jira/page.json", b'{"issues": []}')
    with daemon_over(settings_of(bucket, tmp_path, s3_server.endpoint), tmp_path) as daemon:
        assert requested(daemon.tick()) == 1
        assert daemon.instance.get_runs()[0].tags["alchemy/changed"] == "git,jira"
        cursor = daemon.cursor()
        assert cursor
        assert len(cursor) < 500  # digests, never object names
        store.delete("raw/jira/page.json")
        assert requested(daemon.tick()) == 1  # what goes away is a change, too


def test_feedback_wakes_its_own_sensor(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    store = Store(bucket, endpoint=s3_server.endpoint)
    store.put("raw/feedback/a.jsonl", b'{"id": "1", "rating": "up"}\n')
    with daemon_over(settings_of(bucket, tmp_path, s3_server.endpoint), tmp_path) as daemon:
        assert daemon.tick().status == TickStatus.SKIPPED
        assert requested(daemon.last("feedback")) == 1
        assert daemon.runs() == 1


def test_a_store_that_does_not_answer_makes_the_tick_fail_and_moves_nothing(
    link: Link, s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    store = Store(bucket, endpoint=s3_server.endpoint)
    store.put("raw/git/log.jsonl", COMMIT % 1)
    with daemon_over(settings_of(bucket, tmp_path, link.endpoint), tmp_path) as daemon:
        assert requested(daemon.tick()) == 1
        cursor = daemon.cursor()
        link.cut()
        tick = daemon.tick()
        assert tick.status == TickStatus.FAILURE
        assert tick.error
        assert "the object store failed" in tick.error.to_string()
        assert (daemon.cursor(), daemon.runs()) == (cursor, 1)
        store.put("raw/git/log.jsonl", COMMIT % 2)
        link.mend()
        assert requested(daemon.tick()) == 1  # what changed meanwhile is not lost
        assert daemon.tick().status == TickStatus.SKIPPED


def test_in_a_folder_content_counts_and_a_touch_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    path = folder / "raw" / "documents" / "note.md"
    with daemon_over(settings_of(str(folder), tmp_path), tmp_path) as daemon:
        assert daemon.tick().status == TickStatus.SKIPPED
        path.parent.mkdir(parents=True)
        path.write_text("# Spare gateways\n")
        assert requested(daemon.tick()) == 1
        os.utime(path, (1, 1))
        assert daemon.tick().status == TickStatus.SKIPPED
        path.write_text("# Spare gateways\n")
        assert daemon.tick().status == TickStatus.SKIPPED
        path.write_text("# Spare sensors!\n")  # as many bytes
        assert requested(daemon.tick()) == 1
        (path.parent / ".hidden").write_text("no data")
        assert daemon.tick().status == TickStatus.SKIPPED
        assert daemon.runs() == 2
