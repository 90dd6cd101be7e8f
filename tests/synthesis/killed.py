"""A synthesis that kills itself, for a process of its own: see `test_resume`."""

import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr

from alchemy.catalog import Refiner
from alchemy.errors import Unavailable
from alchemy.settings import SynthesisOptions
from alchemy.synthesis.client import LlmClient, RetryPolicy, Usage
from alchemy.synthesis.generate import LlmProvider
from alchemy.synthesis.pairs import write_pairs
from alchemy.text.language import detect_language
from tests.synthesis.corpus import many

OPTIONS = SynthesisOptions(max_samples=70, pairs_per_chunk=2, threads=4)


@dataclass(frozen=True)
class Arguments:
    url: str
    cache: Path
    folder: Path


def warm_up() -> None:
    """Loads what the first call and the first verdict load: litellm takes seconds for it."""
    detect_language("None of the forked processes has to load the languages again after this.")
    with TemporaryDirectory() as folder, suppress(Unavailable):
        nobody = Refiner(
            model_id="deepseek/deepseek-chat", base_url="http://127.0.0.1:9", api_key=SecretStr("sk")
        )
        with LlmClient(nobody, Path(folder) / "llm.sqlite", retry=RetryPolicy(attempts=1)) as client:
            client.complete([{"role": "user", "content": "Is anybody there?"}])


def write(arguments: Arguments) -> tuple[dict[str, Any], Usage]:
    """The whole synthesis of forty documents; a call that fails or hangs is tried again, many times."""
    model = Refiner(
        model_id="deepseek/deepseek-chat", base_url=arguments.url, api_key=SecretStr("sk"), timeout_s=3
    )
    retry = RetryPolicy(attempts=30, base_s=0.01, breaker_failures=1000)
    documents, chunks, insights = many(40)
    arguments.folder.mkdir(exist_ok=True)
    with LlmClient(model, arguments.cache, retry=retry) as client:
        provider = LlmProvider(client, OPTIONS.threads)
        metrics = write_pairs(arguments.folder, lambda: documents, chunks, insights, provider, OPTIONS)
        return metrics, client.usage


def write_until_killed(arguments: Arguments, calls: int) -> None:
    """Writes up to the given call of any Python function in any thread, then SIGKILL."""
    left = calls

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        left -= event == "call"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)
    write(arguments)


warm_up()  # once, in the server that forks the processes: it imports this module
