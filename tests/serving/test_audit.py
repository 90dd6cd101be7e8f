import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.people.access import Principal
from serving.people.audit import Audit
from serving.watching.metrics import Metrics
from tests.serving.conftest import eventually

ANN = Principal("ann", tenant="acme", credential="login-1")


def rows(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def lost(metrics: Metrics) -> float:
    value = metrics.registry.get_sample_value("audit_entries_lost_total")
    assert value is not None
    return value


@pytest.fixture
def open_audit(tmp_path: Path) -> Callable[..., Audit]:
    def make(path: Path = tmp_path / "log" / "audit.jsonl", **changes: Any) -> Audit:
        return Audit(path, Metrics(), **({"max_bytes": 1 << 20, "files": 3} | changes))

    return make


def test_an_entry_says_who_did_what_when(open_audit: Callable[..., Audit]) -> None:
    audit = open_audit()
    audit.record("login", ANN, address="203.0.113.9")
    audit.close()
    (row,) = rows(audit.path)
    assert row.pop("time").startswith("20")
    assert row == {
        "event": "login", "user": "ann", "tenant": "acme", "via": "login", "credential": "login-1",
        "address": "203.0.113.9",
    }  # fmt: skip
    assert audit.path.stat().st_mode & 0o777 == 0o600


def test_files_rotate_and_the_oldest_goes(tmp_path: Path, open_audit: Callable[..., Audit]) -> None:
    audit = open_audit(max_bytes=1024)
    for number in range(200):
        audit.record("answer", ANN, answer=f"ans-{number}")
        if number % 10 == 9:  # not all in one batch
            eventually(audit._entries.empty)
    audit.close()
    files = sorted(path.name for path in (tmp_path / "log").iterdir())
    assert files == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]
    kept = [row["answer"] for name in reversed(files) for row in rows(tmp_path / "log" / name)]
    assert kept == [f"ans-{number}" for number in range(200 - len(kept), 200)]


def test_a_full_disk_loses_entries_visibly_and_nothing_else(tmp_path: Path) -> None:
    path, metrics = tmp_path / "audit.jsonl", Metrics()
    path.symlink_to("/dev/full")
    audit = Audit(path, metrics, max_bytes=1 << 20, files=3)
    audit.record("login", ANN)
    eventually(lambda: lost(metrics) == 1)
    assert "No space left" in (audit.problem or "")
    path.unlink()
    audit.record("logout", ANN)
    eventually(lambda: audit.problem is None)
    audit.close()
    assert [row["event"] for row in rows(path)] == ["logout"]
    assert lost(metrics) == 1


def test_standard_output_takes_it_too() -> None:
    script = (
        "from pathlib import Path\n"
        "from serving.people.audit import Audit\n"
        "from serving.watching.metrics import Metrics\n"
        "audit = Audit(Path('/dev/stdout'), Metrics(), max_bytes=1, files=3)\n"
        "for event in ('login', 'logout'):\n"
        "    audit.record(event)\n"
        "audit.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=120)
    assert [orjson.loads(line)["event"] for line in done.stdout.splitlines()] == ["login", "logout"]


def test_a_disk_that_hangs_holds_up_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    os.mkfifo(path)  # nobody reads: opening it to write hangs
    monkeypatch.setattr("serving.people.audit._PATIENCE_S", 0.1)
    monkeypatch.setattr("serving.people.audit._WAITING", 1)
    audit = Audit(path, Metrics(), max_bytes=1 << 20, files=3)
    for _ in range(10):
        audit.record("login", ANN)
    stopped = threading.Thread(target=audit.close)
    stopped.start()
    stopped.join(60)
    assert not stopped.is_alive()
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # lets the writer go


def test_two_processes_write_whole_lines_into_one_file(open_audit: Callable[..., Audit]) -> None:
    first, second = open_audit(), open_audit()
    for number in range(300):
        (first, second)[number % 2].record("answer", ANN, number=number)
    first.close()
    second.close()
    assert sorted(row["number"] for row in rows(first.path)) == list(range(300))
