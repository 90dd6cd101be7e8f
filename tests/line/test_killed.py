"""kill -9 in the middle of a stage: what was there stays, whole and readable, and the next run completes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alchemy.asking import open_search
from alchemy.catalog import load_catalog
from alchemy.release import Release, read_release, read_release_alias
from alchemy.training.base import attach, load_base
from alchemy.training.dataset import Step
from alchemy.training.evaluate import check_adapter
from alchemy.training.run import TrainingRun
from tests.line.running import ROOT, SMALL, Line, Run, change_one_object, copy_line

pytestmark = pytest.mark.integration

QUESTION = "Which compression do the nightly customer exports use?"
UP_TO_INSIGHTS = (
    "raw/confluence",
    "cleaned_corpus",
    "rag_chunks",
    "metrics",
    "quant_features",
    "quant_insights",
)


def kill(line: Line, folder: Path, place: str, calls: int, *assets: str) -> None:
    """Runs the assets in a process that is killed by SIGKILL after some calls at a place."""
    settings = folder / "settings.json"
    settings.write_text(line.settings.model_dump_json(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tests.line.killed", str(settings), place, str(calls), *assets],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


def champion(line: Line) -> tuple[str, Release]:
    alias = read_release_alias(line.artifacts, "champion")
    assert alias is not None
    return alias.release, read_release(line.artifacts, alias.release)


def answers(line: Line) -> list[str]:
    """The ids of the passages that the champion finds, after every file behind it was verified."""
    _, release = champion(line)
    index = line.artifacts.get("faiss_index", release.index)
    line.artifacts.verify(index)
    search = open_search(line.artifacts, release, load_catalog(line.settings.catalog), line.settings)
    return [passage.chunk.id for passage in search(QUESTION, line.settings.search).passages]


def load_adapter(line: Line) -> None:
    """Puts the champion's adapter on its base. Raises where it does not fit."""
    _, release = champion(line)
    folder = line.artifacts.fetch(line.artifacts.get("lora_adapter", release.adapters["lora_adapter"]))
    check_adapter(folder, release.base_model)
    attach(load_base(release.base_model, "cpu"), folder, "lora_adapter")


@pytest.fixture
def changed_line(line: Line, tmp_path: Path) -> Line:
    """The made line, where one raw object has changed and no run has seen it yet."""
    copy = copy_line(line, tmp_path)
    change_one_object(copy.store)
    return copy


@pytest.fixture(scope="module")
def answered(line: Line) -> list[str]:
    return answers(line)


@pytest.mark.parametrize(
    ("place", "calls", "asset", "before"),
    [
        ("embedding", 1, "faiss_index", UP_TO_INSIGHTS),
        ("publishing", 3, "faiss_index", UP_TO_INSIGHTS),
        ("training", 4, "lora_adapter", (*UP_TO_INSIGHTS, "sft_pairs")),
        ("publishing", 1, "lora_adapter", (*UP_TO_INSIGHTS, "sft_pairs")),
    ],
)
def test_a_kill_while_an_asset_is_made_leaves_what_was_there_and_the_next_run_makes_it(
    changed_line: Line,
    changed: tuple[Line, Run],
    answered: list[str],
    tmp_path: Path,
    place: str,
    calls: int,
    asset: str,
    before: tuple[str, ...],
) -> None:
    ready = changed_line.materialize(*before)
    assert ready.success, ready.error
    latest, versions = changed_line.versions(), changed_line.artifacts.versions(asset)
    serving = champion(changed_line)

    kill(changed_line, tmp_path, place, calls, asset)

    assert changed_line.versions() == latest
    assert changed_line.artifacts.versions(asset) == versions  # what was half-written is no version
    assert champion(changed_line) == serving
    assert answers(changed_line) == answered
    load_adapter(changed_line)

    run = changed_line.materialize(asset)
    assert run.success, run.error
    assert run.versions[asset] == changed[1].versions[asset]
    changed_line.artifacts.verify(changed_line.artifacts.latest(asset))


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_adapter(
    changed_line: Line, changed: tuple[Line, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = changed_line.materialize(*UP_TO_INSIGHTS, "sft_pairs")
    assert ready.success, ready.error
    every_step = changed_line.settings.train.model_copy(update={"checkpoint_seconds": 0})
    line = Line.of(changed_line.settings.model_copy(update={"train": every_step}))

    kill(line, tmp_path, "training", 4, "lora_adapter")

    assert len(line.store.objects("state/training/lora_adapter")) == 2
    taken: list[Step] = []
    take_step = TrainingRun._step

    def counted(run: TrainingRun, step: Step, learning_rate: float) -> float:
        taken.append(step)
        return take_step(run, step, learning_rate)

    monkeypatch.setattr(TrainingRun, "_step", counted)
    run = line.materialize("lora_adapter")
    assert run.success, run.error
    assert len(taken) == run.metadata["lora_adapter"]["steps"] - 3
    assert run.versions["lora_adapter"] == changed[1].versions["lora_adapter"]
    assert line.store.objects("state/training") == []


def test_a_run_that_was_killed_while_cleaning_goes_on_where_it_was(
    line: Line, first_run: Run, answered: list[str], tmp_path: Path
) -> None:
    own = copy_line(line, tmp_path)
    # Results of single objects are forgotten, so that there is work to be killed in.
    for one in own.store.objects("processed/objects"):
        own.store.delete(one.key)
    own.store.put("raw/documents/note.md", b"# Spare gateways\n\nThey stand in the cabinet of hall three.\n")
    latest = own.versions()

    assets = ("raw/documents", "cleaned_corpus")
    kill(own, tmp_path, "cleaning", 6, *assets)

    left = own.versions()
    assert left.pop("raw/documents") != latest.pop("raw/documents")
    assert left == latest
    assert champion(own) == champion(line)
    assert answers(own) == answered

    run = own.materialize()
    assert run.success, run.error
    assert run.metadata["cleaned_corpus"]["pieces_cleaned"] == len(SMALL) + 1 - 6
    assert run.checks["cleaned_corpus:conservation"]
    rows = "dagster/row_count"
    assert run.metadata["cleaned_corpus"][rows] == first_run.metadata["cleaned_corpus"][rows] + 1


def test_killed_between_the_corpus_and_its_quarantine_the_next_run_makes_both(
    changed_line: Line, changed: tuple[Line, Run], tmp_path: Path
) -> None:
    ready = changed_line.materialize("raw/confluence")
    assert ready.success, ready.error
    latest = changed_line.versions()
    # Two files for the changed object, one of the quarantine, then the corpus' own.
    kill(changed_line, tmp_path, "publishing", 4, "cleaned_corpus")
    assert changed_line.versions() | {"quarantine": ""} == latest | {"quarantine": ""}
    run = changed_line.materialize("cleaned_corpus")
    assert run.success, run.error
    assert run.checks["cleaned_corpus:conservation"]
    assert run.versions["cleaned_corpus"] == changed[1].versions["cleaned_corpus"]
    assert changed_line.versions()["quarantine"] == changed[0].versions()["quarantine"]


def test_an_answer_does_not_depend_on_the_run_that_follows(
    changed: tuple[Line, Run], line: Line, answered: list[str]
) -> None:
    """Both lines stand; the first one's champion was not touched by the second's."""
    assert champion(changed[0]) != champion(line)
    assert answers(line) == answered
    assert np.isfinite(changed[1].metadata["lora_adapter"]["eval_loss"])
