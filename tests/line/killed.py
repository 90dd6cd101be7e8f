"""Runs some assets in a process of its own, which kills itself in the middle of one: see `test_killed`.

python -m tests.line.killed SETTINGS.json PLACE CALLS ASSET...
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import orjson

from alchemy.settings import Settings
from tests.line.running import Line

# Where a process can be killed: a function in the middle of a stage's work, or the writing of its result.
PLACES = {
    "cleaning": ("alchemy.engine", "clean_piece"),
    "embedding": ("alchemy.retrieval.embed", "_TorchBackend.encode"),
    "training": ("alchemy.training.run", "TrainingRun._step"),
    "publishing": ("alchemy.store", "Store.put"),
}


def kill_after(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """The function, whose last allowed call is followed by SIGKILL: no handler, no cleaning up."""
    done = 0

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        result = function(*args, **kwargs)
        done += 1
        if done == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted


def main() -> None:
    settings, place, calls, *assets = sys.argv[1:]
    module, name = PLACES[place]
    owner: Any = importlib.import_module(module)
    *parents, last = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    line = Line.of(Settings.model_validate(orjson.loads(Path(settings).read_bytes())))
    setattr(owner, last, kill_after(getattr(owner, last), int(calls)))
    run = line.materialize(*assets)
    sys.exit(run.error or "the run ended before it was killed")


if __name__ == "__main__":
    main()
