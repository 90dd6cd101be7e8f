"""A pool of real parts: an S3 server, stores, artifacts. Expensive ones live for the whole session."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from alchemy.artifacts import Artifacts
from alchemy.engine import java_available
from alchemy.store import Store
from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

# Where nobody has set one yet, litellm makes the main thread a default event loop, and leaves it open.
asyncio.set_event_loop(None)


@dataclass(frozen=True)
class S3Server:
    """A SeaweedFS S3 endpoint on loopback and how to talk to it."""

    endpoint: str
    bucket: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests first: what is cheap to break is told early."""
    items.sort(key=lambda item: item.get_closest_marker("integration") is not None)


@pytest.fixture(scope="session")
def corpus_raw() -> Path:
    """The real corpus that developers share; it is no part of the project."""
    folder = SHARED / "corpus" / "raw"
    if not folder.is_dir():
        pytest.skip("the shared real corpus is not beside this checkout (../shared/corpus/raw)")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS with authentication, from a package; its credentials are set in the environment."""
    import boto3

    folder = tmp_path_factory.mktemp("seaweedfs")
    access_key, secret_key = "test-access", "test-secret"
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_bytes(orjson.dumps({"identities": [identity]}))
    ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(4), strict=True))
    grpc = dict(zip(ports, free_ports(4), strict=True))
    command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}", "-s3"]
    command += ["-ip=127.0.0.1", f"-s3.config={folder / 's3.json'}", "-volume.max=50"]
    command += ["-master.volumeSizeLimitMB=64"]
    # Two catalogs that nobody asked for, on fixed ports: a second test session could not start.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    for name, port in ports.items():
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc[name]}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", access_key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)
    patch.setenv("AWS_REGION", "us-east-1")
    try:
        _wait_for(f"{endpoint}/healthz", process, folder / "log")
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="lora-data")
        yield S3Server(endpoint, "lora-data")
    finally:
        patch.undo()
        process.kill()  # its data is thrown away; an orderly stop takes half a minute
        process.wait()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, once on a folder and once on a real S3 server."""
    if request.param == "folder":
        return Store(str(tmp_path / "store"))
    server = request.getfixturevalue("s3_server")
    return Store(f"s3://{server.bucket}/{os.urandom(6).hex()}", endpoint=server.endpoint)


@pytest.fixture
def artifacts(store: Store, tmp_path: Path) -> Artifacts:
    return Artifacts(store, tmp_path / "cache")


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def put_raw(folder_store: Store) -> Callable[[str, bytes], None]:
    """Puts one raw object into the folder store: `put_raw("git/log.jsonl", data)`."""

    def put(name: str, data: bytes) -> None:
        folder_store.put(f"raw/{name}", data)

    return put


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"server did not come up: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest) -> Iterator[object]:
    """One Spark session on two local cores. Needs Java."""
    if not java_available():
        pytest.skip("Java 17+ is not installed; the Spark engine is not tested")
    # Its workers keep the environment of this moment, and the S3 credentials must be in it.
    request.getfixturevalue("s3_server")
    from spark_jobs.clean import start_session

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        session = start_session("local[2]")
        yield session
        session.stop()
