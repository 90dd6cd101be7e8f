"""`alchemy demo`: raw data in, the whole line through Dagster, then the UI and the chat service.

It does what a user would do by hand, with the same commands; nothing here is needed elsewhere.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from alchemy.artifacts import Artifacts
from alchemy.asking import STORED
from alchemy.errors import BadInput, Unavailable
from alchemy.materializing import LINE, Say, dagster_home, materialize
from alchemy.models import pull
from alchemy.parts import read_parts
from alchemy.records import SftPair
from alchemy.settings import Settings
from alchemy.store import Store
from alchemy.upload import upload_raw

_ROOT = Path(__file__).parents[1]
_SAMPLE = _ROOT / "examples" / "raw"
_SAMPLE_QUESTIONS = (
    "When are the nightly customer exports written?",
    "Did all gateways get onto 4.2.0 after HAUL-158?",
    "What is the parental leave policy for contractors in Brazil?",
)
_UNANSWERABLE = "Who won the football World Cup of 1998?"


def run_demo(
    settings: Settings, raw: Path | None, *, exit_after: bool, ui_port: int, port: int, say: Say
) -> list[dict[str, Any]]:
    """Runs everything; returns the three answers where `exit_after`, else serves until Ctrl-C."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the services end with this process
    for number in (port,) if exit_after else (ui_port, port):
        _require_free(number)
    pull(settings.models, say)
    _upload(settings, raw or _SAMPLE, say)
    home = dagster_home()
    materialize(home, "*", {}, say)
    say(f"all assets are materialized after {time.monotonic() - started:.0f} s")
    questions = _SAMPLE_QUESTIONS if raw is None else _questions(settings)
    service = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        serve = [sys.executable, "-m", "serving"]
        address = {"ALCHEMY_HOST": "127.0.0.1", "ALCHEMY_PORT": str(port)}
        if not exit_after:
            address["ALCHEMY_SERVING_DAGSTER_URL"] = f"http://127.0.0.1:{ui_port}"
        stack.enter_context(_running(serve, address, home / "serving.log"))
        if not exit_after:
            ui = [sys.executable, "-m", "dagster", "dev", "-m", LINE, "-p", str(ui_port)]
            stack.enter_context(_running(ui, {"DAGSTER_HOME": str(home)}, home / "dagster.log"))
        say(f"starting; what the services print is in {home}/*.log")
        _wait(f"{service}/readyz", 300)
        if exit_after:
            return [_ask(service, question, say) for question in questions]
        _wait(f"http://127.0.0.1:{ui_port}/server_info", 180)
        say(f"\nDagster UI    http://127.0.0.1:{ui_port}\nChat          {service}\n\nOr:")
        for question in questions:
            body = shlex.quote(orjson.dumps({"question": question}).decode())
            say(f"  curl -s {service}/api/chat -H 'content-type: application/json' -d {body}")
        say("\nCtrl-C ends both.")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
    return []


def _upload(settings: Settings, raw: Path, say: Say) -> None:
    store = Store(settings.store_url, endpoint=settings.s3_endpoint)
    counts = upload_raw(store, raw)["sources"]
    files = sum(sum(count.values()) for count in counts.values())
    say(f"raw data: {files} files of {', '.join(counts)} in {settings.store_url}")
    questions = raw.parent / "questions.jsonl"
    if questions.is_file():
        store.put(STORED, questions)


def _questions(settings: Settings) -> tuple[str, ...]:
    """Two questions of two sources, from pairs that no training saw, and one that no company answers."""
    artifacts = Artifacts(Store(settings.store_url, endpoint=settings.s3_endpoint), settings.cache)
    asked: dict[str, str] = {}
    for pair in read_parts(SftPair, artifacts.parts(artifacts.latest("sft_pairs"), "sft_holdout")):
        if pair.kind != "unanswerable":
            asked.setdefault(pair.document_id.partition(":")[0], pair.instruction)
    return (*list(asked.values())[:2], _UNANSWERABLE)


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process that ends with the block, and its children with it."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)  # `dagster dev` does not heed SIGTERM
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever is left of the group
        process.wait()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise BadInput(f"port {port} is in use; choose others with --ui-port and --port") from None


def _wait(url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise Unavailable(f"{url} did not answer within {seconds:.0f} s; see the logs")


def _ask(service: str, question: str, say: Say) -> dict[str, Any]:
    body = orjson.dumps({"question": question})
    headers = {"content-type": "application/json"}
    key = os.environ.get("ALCHEMY_API_KEY")
    if key:
        headers["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(f"{service}/api/chat", body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
        answer: dict[str, Any] = orjson.loads(response.read())
    say(f"\n> {question}\n{answer['answer']}")
    for citation in answer["citations"]:
        say(f"  [{citation['number']}] {citation['document_id']}: {citation['quote'][:100]!r}")
    return {"question": question, **answer}
