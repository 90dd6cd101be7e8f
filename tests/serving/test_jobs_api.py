"""Starting a cycle by Dagster's own webserver, and watching it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from alchemy.errors import NotFound
from serving.routes.dagster_api import DagsterApi
from tests.ports import free_ports
from tests.serving.conftest import Knowledge, Serve, Service, eventually

# A line of two assets; the second has nothing to clean and fails.
LINE = """
from dagster import AssetKey, Definitions, asset, define_asset_job

@asset(key=["raw", "git"])
def raw_git(): ...

@asset(deps=[AssetKey(["raw", "git"])])
def cleaned_corpus():
    raise ValueError("no raw object to clean")

defs = Definitions([raw_git, cleaned_corpus], jobs=[define_asset_job("full_cycle", "*")])
"""
# Runs start at once: no daemon takes them from a queue here.
INSTANCE = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a `dagster-webserver`."""
    folder = tmp_path_factory.mktemp("dagster")
    (folder / "line.py").write_text(LINE)
    (folder / "dagster.yaml").write_text(INSTANCE)
    port = free_ports(1)[0]
    command = [
        *(sys.executable, "-m", "dagster_webserver", "-f", str(folder / "line.py")),
        *("-p", str(port), "--log-level", "warning"),
    ]
    log = folder / "webserver.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "DAGSTER_HOME": str(folder), "DAGSTER_DISABLE_TELEMETRY": "1"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            return httpx.get(f"{url}/server_info", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        eventually(answers, 120)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(service: Service) -> str:
    response = service.http.post("/api/jobs/full-cycle")
    assert response.status_code == 202, response.text
    run_id: str = response.json()["run_id"]
    assert response.json()["url"].endswith(f"/runs/{run_id}")
    return run_id


def end(service: Service, run_id: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def done() -> bool:
        seen.update(service.http.get(f"/api/jobs/{run_id}").raise_for_status().json())
        return bool(seen["done"])

    eventually(done, 120)
    return seen


@pytest.mark.integration
def test_a_cycle_is_started_and_watched_through_dagster_to_its_end(
    dagster: str, knowledge: Knowledge, serve: Serve
) -> None:
    with serve(ready=False, dagster_url=dagster) as service:
        seen = end(service, start(service))
        unknown = service.http.get("/api/jobs/00000000-0000-0000-0000-000000000000")
    assert seen["run"]["status"] == "FAILURE"
    assert {step["name"]: (step["status"], step["assets"]) for step in seen["run"]["steps"]} == {
        "raw__git": ("SUCCESS", ["raw/git"]),
        "cleaned_corpus": ("FAILURE", []),
    }
    (error,) = seen["run"]["errors"]
    assert error.startswith("cleaned_corpus: ") and "no raw object to clean" in error
    assert unknown.status_code == 404


@pytest.mark.integration
def test_a_job_that_no_code_location_has_is_named(dagster: str) -> None:
    async def launch() -> None:
        api = DagsterApi(dagster)
        try:
            with pytest.raises(NotFound, match="half_cycle"):
                await api.launch("half_cycle", tags={})
        finally:
            await api.aclose()

    asyncio.run(launch())


def test_without_dagster_the_setting_that_is_missing_is_named(knowledge: Knowledge, serve: Serve) -> None:
    with serve(ready=False) as service:
        response = service.http.post("/api/jobs/full-cycle")
    assert response.status_code == 503
    assert "ALCHEMY_SERVING_DAGSTER_URL" in response.json()["error"]["message"]


def test_a_dagster_that_does_not_answer_is_a_503_with_its_address(knowledge: Knowledge, serve: Serve) -> None:
    with serve(ready=False, dagster_url="http://127.0.0.1:9") as service:
        response = service.http.post("/api/jobs/full-cycle")
    assert response.status_code == 503
    assert "http://127.0.0.1:9" in response.json()["error"]["message"]
