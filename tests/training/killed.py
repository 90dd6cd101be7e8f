"""A training that kills itself, for a process of its own: see `test_resume`."""

import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# For the server that forks the processes: it imports this module once.
import peft  # noqa: F401
import torch
import transformers  # noqa: F401

from alchemy.catalog import LoraOptions
from alchemy.records import SftPair
from alchemy.settings import TrainOptions
from alchemy.store import Store
from alchemy.training.checkpoints import Checkpoints
from alchemy.training.lora import train_lora
from alchemy.training.run import TrainingRun


@dataclass(frozen=True)
class Arguments:
    base: str
    train: list[SftPair]
    evaluation: list[SftPair]
    lora: LoraOptions
    options: TrainOptions
    store: str


def train_until_killed(arguments: Arguments, folder: str, calls: int) -> None:
    """Trains up to the given call of any Python function after the first step began, then SIGKILL."""
    torch.set_num_threads(1)
    left = calls

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        left -= event == "call"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    take_step = TrainingRun._step

    def counted(run: Any, step: Any, learning_rate: float) -> float:
        sys.setprofile(count)
        return take_step(run, step, learning_rate)

    TrainingRun._step = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as adapter:
        train_lora(
            arguments.base,
            arguments.train,
            arguments.evaluation,
            arguments.lora,
            arguments.options,
            device="cpu",
            folder=Path(adapter),
            checkpoints=Checkpoints(Store(arguments.store), folder),
        )
