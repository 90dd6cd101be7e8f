"""A standalone Spark cluster on loopback, whose two workers become one in the middle of the job.

The driver is `spark-submit` in a process of its own, as on any cluster; nothing of Dagster takes part.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from alchemy.assembly import unbalanced
from alchemy.corpus import Cleaned, CleanJob, Piece
from alchemy.engine import PythonEngine, java_available
from alchemy.settings import Settings
from alchemy.store import Store
from alchemy.upload import upload_raw
from tests.conftest import ROOT, S3Server
from tests.ports import free_ports
from tests.test_corpus import Washed, commit, listed, washed

pytestmark = pytest.mark.integration

# No task begins before both executors are there, so the one that is killed has work.
_BOTH_WORK = (
    "spark.cores.max=2",
    "spark.scheduler.minRegisteredResourcesRatio=1.0",
    "spark.scheduler.maxRegisteredResourcesWaitingTime=120s",
)
_SALT = Settings(_env_file=None).pseudonym_salt  # type: ignore[call-arg]


@dataclass
class Cluster:
    """A running standalone cluster."""

    master: str
    workers: list["subprocess.Popen[bytes]"]
    environment: dict[str, str]

    def submit(self, store: Store, log: Path) -> "subprocess.Popen[bytes]":
        command = [str(Path(sys.executable).with_name("spark-submit")), "--master", self.master]
        for option in _BOTH_WORK:
            command += ["--conf", option]
        command += ["spark_jobs/clean.py", "--store", store.url]
        command += ["--endpoint", store.endpoint] if store.endpoint else []
        with log.open("wb") as out:
            return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=out, stderr=out)

    def kill_a_worker(self) -> None:
        """The worker and its executors, without a word to anybody."""
        os.killpg(self.workers[0].pid, signal.SIGKILL)


@pytest.fixture
def cluster(s3_server: S3Server, tmp_path: Path) -> Iterator[Cluster]:
    if not java_available():
        pytest.skip("Java 17+ is not installed; the Spark engine is not tested")
    import pyspark

    home = Path(pyspark.__file__).parent
    port, page = free_ports(2)
    master = f"spark://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(tmp_path / "work"),
        "PYSPARK_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }
    server = "org.apache.spark.deploy"
    commands = [
        [f"{server}.master.Master", "--host", "127.0.0.1", "--port", f"{port}", "--webui-port", f"{page}"]
    ]
    worker = [f"{server}.worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "2g"]
    commands += [[*worker, "--webui-port", "0", master]] * 2
    processes = []
    log = tmp_path / "cluster.log"
    try:
        with log.open("wb") as out:
            for command in commands:
                processes.append(
                    subprocess.Popen(
                        [str(home / "bin" / "spark-class"), *command],
                        env=environment,
                        stdout=out,
                        stderr=out,
                        start_new_session=True,
                    )
                )
        _wait_for_workers(f"http://127.0.0.1:{page}/json/", log)
        yield Cluster(master, processes[1:], environment)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_real_corpus_is_the_same_after_a_worker_died(
    cluster: Cluster, corpus_raw: Path, tmp_path: Path
) -> None:
    stores = [Store(str(tmp_path / name)) for name in ("cluster", "python")]
    for store in stores:
        upload_raw(store, corpus_raw)
    on_cluster = wash_on(cluster, stores[0], tmp_path / "driver.log")
    in_python = washed(stores[1], PythonEngine(2).clean, salt=_SALT)
    assert on_cluster.versions() == in_python.versions()
    assert unbalanced(in_python.made.conservation) == {}
    assert in_python.made.documents > 10_000


def test_a_bucket_holds_the_same_after_a_worker_died(
    cluster: Cluster, s3_server: S3Server, tmp_path: Path
) -> None:
    bucket = Store(f"s3://{s3_server.bucket}/{os.urandom(6).hex()}", endpoint=s3_server.endpoint)
    stores = [bucket, Store(str(tmp_path / "python"))]
    for store in stores:
        for number in range(40):
            lines = (commit(number * 300 + one, f"It waits for lock {one}. " * 20) for one in range(300))
            store.put(f"raw/git/{number}.jsonl", b"".join(lines))
    on_cluster = wash_on(cluster, bucket, tmp_path / "driver.log", tmp_path / "cache")
    assert on_cluster.versions() == washed(stores[1], PythonEngine(2).clean, salt=_SALT).versions()
    assert on_cluster.made.documents == 40 * 300


def wash_on(cluster: Cluster, store: Store, log: Path, cache: Path | None = None) -> Washed:
    """Cleans on the cluster, one worker of which is killed once the first result is there; then assembles."""
    driver = cluster.submit(store, log)
    try:
        while not store.folders("processed/objects"):
            assert driver.poll() is None, log.read_text(errors="replace")[-5000:]
            time.sleep(0.05)
        cluster.kill_a_worker()
        assert driver.wait(timeout=300) == 0, log.read_text(errors="replace")[-5000:]
    finally:
        driver.kill()
        driver.wait()
    assert "Lost executor" in log.read_text(errors="replace")

    def nothing_is_left(job: CleanJob, pieces: Sequence[Piece]) -> Iterable[Cleaned]:
        raise AssertionError(f"the cluster left {len(pieces)} pieces")

    assert listed(store)
    return washed(store, nothing_is_left, salt=_SALT, cache=cache)


def _wait_for_workers(url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                if json.load(response)["aliveworkers"] == 2:
                    return
        except (urllib.error.URLError, OSError, ValueError):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the cluster did not come up: {log.read_text(errors='replace')[-3000:]}")
