"""The code location as Dagster's own programs load it."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from dagster import DagsterInstance, asset, materialize

from tests.line.running import ASSETS, DAGSTER_YAML, ROOT
from tests.ports import free_ports

pytestmark = pytest.mark.integration

LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
  name locationOrLoadError { __typename
    ... on RepositoryLocation { repositories {
      assetNodes { assetKey { path } } sensors { name sensorState { status } } schedules { name } } }
    ... on PythonError { message } } } } } }"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty store and a fresh DAGSTER_HOME with the repository's own dagster.yaml."""
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copyfile(DAGSTER_YAML, home / "dagster.yaml")
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "ALCHEMY_STORE": str(tmp_path / "store"),
        "ALCHEMY_CACHE": str(tmp_path / "cache"),
    }


def test_a_place_in_a_pool_that_a_killed_run_has_taken_keeps_nobody_waiting(
    environment: dict[str, str],
) -> None:
    @asset(pool="training")
    def trained() -> None: ...

    with DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("training")
        storage.claim_concurrency_slot("training", "the run that was killed", "trained")
        assert materialize([trained], instance=instance).success


def test_dagster_finds_the_definitions_valid(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dagster_dev_shows_every_asset_and_ends_when_it_is_told_to(
    environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "dagster", "dev", "-m", "dagster_project.definitions", "-p", str(port)]
    log = tmp_path / "dev.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
            # A runner in the background of a shell ignores Ctrl-C, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _poll(lambda: _get(f"{url}/server_info"), process, log)
        entries = _poll(lambda: _locations(f"{url}/graphql"), process, log)
        assert [entry["locationOrLoadError"]["__typename"] for entry in entries] == ["RepositoryLocation"]
        (repository,) = entries[0]["locationOrLoadError"]["repositories"]
        assert {"/".join(node["assetKey"]["path"]) for node in repository["assetNodes"]} == set(ASSETS)
        sensors = {one["name"]: one["sensorState"]["status"] for one in repository["sensors"]}
        assert sensors.keys() >= {"raw_objects", "feedback"}
        assert {sensors["raw_objects"], sensors["feedback"]} == {"RUNNING"}
        assert [one["name"] for one in repository["schedules"]] == ["full_cycle_schedule"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 0, log.read_text(errors="replace")[-3000:]
        _poll(lambda: not _members(process.pid) or None, None, log)
    finally:
        for member in _members(process.pid):
            os.kill(member, signal.SIGKILL)
        process.wait()


def _members(group: int) -> list[int]:
    """The processes of the group that the test started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def _get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bytes(response.read())
    except (urllib.error.URLError, OSError):
        return None


def _locations(url: str) -> list[dict[str, Any]] | None:
    """The loaded code locations, or None while there is one that still loads."""
    body = orjson.dumps({"query": LOCATIONS})
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            entries = orjson.loads(response.read())["data"]["workspaceOrError"]["locationEntries"]
    except (urllib.error.URLError, OSError):
        return None
    return entries if entries and all(entry["locationOrLoadError"] for entry in entries) else None


def _poll(ask: Callable[[], Any], process: "subprocess.Popen[bytes] | None", log: Path) -> Any:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        answer = ask()
        if answer is not None:
            return answer
        if process and process.poll() is not None:
            break
        time.sleep(0.3)
    raise AssertionError(log.read_text(errors="replace")[-3000:])
