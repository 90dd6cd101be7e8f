"""A training run that was stopped anywhere goes on from the store and ends in the same bytes."""

import dataclasses
import logging
import multiprocessing
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from alchemy.catalog import LoraOptions
from alchemy.settings import TrainOptions
from alchemy.store import Store
from alchemy.training.checkpoints import Checkpoints, State
from alchemy.training.lora import TrainReport, train_lora

STEPS = 12
CALLS_OF_A_STEP = 5000  # of Python functions, at least; an evaluation makes twice as many
EVERY_STEP = TrainOptions(
    max_tokens=3000, max_length=128, epochs=10, learning_rate=1e-2, batch_tokens=256, checkpoint_seconds=0
)
LORA = LoraOptions(r=4, alpha=8, dropout=0.1)  # dropout: random numbers are drawn in every step

Train = Callable[..., TrainReport]


class Stopped(Exception):
    pass


class Progress:
    """Counts the steps that a run takes, and ends it after the one called `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.steps: list[int] = []

    def __call__(self, done: int, total: int, numbers: dict[str, float]) -> None:
        self.steps.append(done)
        if done == self.last:
            raise Stopped


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(Store(str(tmp_path / "store")), "state/training/lora_adapter")


@pytest.fixture(scope="module")
def train(tiny_base, train_pairs, eval_pairs) -> Train:
    def run(
        folder,
        checkpoints=None,
        last=None,
        options=EVERY_STEP,
        lora=LORA,
        held_out=eval_pairs,
        pairs=None,
        texts=(),
    ):
        folder.mkdir(exist_ok=True)
        progress = Progress(last)
        report = train_lora(
            tiny_base,
            pairs or train_pairs,
            held_out,
            lora,
            options,
            device="cpu",
            folder=folder,
            texts=texts,
            progress=progress,
            checkpoints=checkpoints,
        )
        return report, progress.steps

    return run


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory) -> tuple[dict[str, bytes], TrainReport]:
    """The files and the report of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    report, steps = train(folder)
    assert steps == list(range(1, STEPS + 1))
    return files(folder), report


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def keys(checkpoints: Checkpoints) -> list[str]:
    return [meta.key for meta in checkpoints.store.objects(checkpoints.folder)]


def damage(checkpoints: Checkpoints, key: str) -> None:
    data = bytearray(checkpoints.store.get(key))
    data[-1] ^= 1
    checkpoints.store.put(key, bytes(data))


def stop_after(train: Train, step: int, folder: Path, checkpoints: Checkpoints, **changes) -> None:
    with pytest.raises(Stopped):
        train(folder, checkpoints, last=step, **changes)
    assert files(folder) == {}


@pytest.mark.parametrize("step", [1, 2, 5, STEPS - 1, STEPS])
def test_a_stopped_run_goes_on_with_the_next_step_and_ends_in_the_same_bytes(
    train, undisturbed, checkpoints, tmp_path, step
):
    stop_after(train, step, tmp_path / "adapter", checkpoints)
    report, steps = train(tmp_path / "adapter", checkpoints)
    assert steps == list(range(step + 1, STEPS + 1))
    assert files(tmp_path / "adapter") == undisturbed[0]
    curves = (report.loss_curve, report.eval_curve, report.tokens, report.eval_loss)
    whole = undisturbed[1]
    assert curves == (whole.loss_curve, whole.eval_curve, whole.tokens, whole.eval_loss)


def test_a_run_that_is_stopped_at_every_step_still_ends_in_the_same_bytes(
    train, undisturbed, checkpoints, tmp_path
):
    for step in range(1, STEPS + 1):
        stop_after(train, step, tmp_path / "adapter", checkpoints)
    train(tmp_path / "adapter", checkpoints)
    assert files(tmp_path / "adapter") == undisturbed[0]


def test_a_run_that_dies_before_a_checkpoint_is_written_repeats_the_step(
    train, undisturbed, checkpoints, tmp_path, monkeypatch
):
    def save(run: str, state: State) -> None:
        if state.step == 4:
            raise Stopped
        Checkpoints.save(checkpoints, run, state)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(checkpoints, "save", save)
        train(tmp_path / "adapter", checkpoints)
    _, steps = train(tmp_path / "adapter", checkpoints)
    assert steps[0] == 4
    assert files(tmp_path / "adapter") == undisturbed[0]


def test_without_evaluation_pairs_a_run_goes_on_as_well(train, checkpoints, tmp_path):
    train(tmp_path / "whole", held_out=[])
    stop_after(train, 3, tmp_path / "adapter", checkpoints, held_out=[])
    train(tmp_path / "adapter", checkpoints, held_out=[])
    assert files(tmp_path / "adapter") == files(tmp_path / "whole")


@pytest.mark.parametrize("step", [2, 5])  # among the texts, and among the pairs
def test_a_stopped_run_that_began_with_texts_goes_on_as_well(train, checkpoints, tmp_path, step):
    texts = [f"Ticket {number} says nothing about gannet." for number in range(60)]
    options = EVERY_STEP.model_copy(update={"max_tokens": 1000, "pretraining_tokens": 1000})
    train(tmp_path / "whole", options=options, texts=texts)
    stop_after(train, step, tmp_path / "adapter", checkpoints, options=options, texts=texts)
    _, steps = train(tmp_path / "adapter", checkpoints, options=options, texts=reversed(texts))
    assert steps[0] == step + 1
    assert files(tmp_path / "adapter") == files(tmp_path / "whole")


def test_a_run_that_ended_early_is_not_trained_further(train, eval_pairs, checkpoints, tmp_path):
    wrong = [dataclasses.replace(pair, response="mailbot " * 5) for pair in eval_pairs]
    report, steps = train(tmp_path / "whole", checkpoints, held_out=wrong)
    assert report.stopped_early
    again, none = train(tmp_path / "adapter", checkpoints, held_out=wrong)
    assert none == []
    assert (again.stopped_early, again.steps) == (True, len(steps))
    assert files(tmp_path / "adapter") == files(tmp_path / "whole")


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    train, undisturbed, checkpoints, tmp_path, caplog
):
    stop_after(train, 5, tmp_path / "adapter", checkpoints)
    newest = keys(checkpoints)[-1]
    damage(checkpoints, newest)
    with caplog.at_level(logging.WARNING, "alchemy.training"):
        _, steps = train(tmp_path / "adapter", checkpoints)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [newest]
    assert steps[0] == 5
    assert files(tmp_path / "adapter") == undisturbed[0]


def test_where_every_checkpoint_is_damaged_the_run_begins_anew(train, undisturbed, checkpoints, tmp_path):
    stop_after(train, 5, tmp_path / "adapter", checkpoints)
    for key in keys(checkpoints):
        damage(checkpoints, key)
    _, steps = train(tmp_path / "adapter", checkpoints)
    assert steps[0] == 1
    assert files(tmp_path / "adapter") == undisturbed[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"options": EVERY_STEP.model_copy(update={"seed": 18})},
        {"options": EVERY_STEP.model_copy(update={"learning_rate": 1e-3})},
        {"lora": LORA.model_copy(update={"alpha": 16})},
        {"held_out": []},
        {
            "options": EVERY_STEP.model_copy(update={"pretraining_tokens": 500}),
            "texts": ["Ticket 7 says nothing about gannet."],
        },
    ],
    ids=["seed", "learning rate", "alpha", "evaluation pairs", "texts"],
)
def test_a_run_of_something_else_begins_anew(train, checkpoints, tmp_path, changes):
    stop_after(train, 3, tmp_path / "adapter", checkpoints)
    with pytest.raises(Stopped):
        train(tmp_path / "adapter", checkpoints, last=1, **changes)


def test_a_run_on_one_pair_less_begins_anew(train, train_pairs, checkpoints, tmp_path):
    stop_after(train, 3, tmp_path / "adapter", checkpoints)
    with pytest.raises(Stopped):
        train(tmp_path / "adapter", checkpoints, last=1, pairs=train_pairs[1:])


def test_how_often_checkpoints_are_written_does_not_make_another_run(
    train, undisturbed, checkpoints, tmp_path
):
    stop_after(train, 3, tmp_path / "adapter", checkpoints)
    rarely = EVERY_STEP.model_copy(update={"checkpoint_seconds": 3600})
    _, steps = train(tmp_path / "adapter", checkpoints, options=rarely)
    assert steps[0] == 4
    assert files(tmp_path / "adapter") == undisturbed[0]


def test_a_run_shorter_than_the_time_between_checkpoints_writes_none(train, checkpoints, tmp_path):
    rarely = EVERY_STEP.model_copy(update={"checkpoint_seconds": 3600})
    train(tmp_path / "adapter", checkpoints, options=rarely)
    assert keys(checkpoints) == []


def test_the_newest_two_checkpoints_are_kept_until_they_are_cleared(checkpoints):
    import torch

    for step in range(1, 5):
        state = State(step, {"one": torch.arange(step), "two": torch.tensor(0.1)}, {"loss": float("inf")})
        checkpoints.save("run", state)
    checkpoints.save("given-up", state)
    assert [key.split("/")[-2] for key in keys(checkpoints)] == ["given-up", "run", "run"]
    found = checkpoints.load("run")
    assert found is not None
    assert (found.step, found.values) == (4, {"loss": float("inf")})
    assert found.tensors["one"].tolist() == [0, 1, 2, 3]
    assert torch.equal(found.tensors["two"], state.tensors["two"])
    checkpoints.clear()
    assert keys(checkpoints) == []
    assert checkpoints.load("run") is None


def test_clearing_takes_what_a_killed_writer_left_of_a_file(checkpoints):
    checkpoints.save("run", State(1, {}, {}))
    folder = checkpoints.store.local_path(checkpoints.folder)
    (folder / "run" / "00000002-0.safetensors#1").write_bytes(b"half")
    checkpoints.clear()
    assert not folder.exists()


@pytest.mark.integration
def test_ten_kills_at_random_points_change_no_byte(
    tiny_base, train_pairs, eval_pairs, train, checkpoints, tmp_path
):
    """SIGKILL at a random call of a Python function, ten times in the same run."""
    from tests.training.killed import Arguments, train_until_killed

    options = EVERY_STEP.model_copy(update={"max_tokens": 8000})
    _, steps = train(tmp_path / "whole", options=options)
    arguments = Arguments(tiny_base, train_pairs, eval_pairs, LORA, options, checkpoints.store.url)
    # A server that has imported torch forks the processes: each of them would take seconds for it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.killed"])
    chance = random.Random(3)  # noqa: S311 - no secret
    for _ in range(10):
        calls = chance.randrange(1, 3 * CALLS_OF_A_STEP)
        process = context.Process(target=train_until_killed, args=(arguments, checkpoints.folder, calls))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    _, left = train(tmp_path / "adapter", checkpoints, options=options)
    assert 0 < len(left) < len(steps)
    assert files(tmp_path / "adapter") == files(tmp_path / "whole")
