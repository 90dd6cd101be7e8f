"""Commands that need a line that was run: `alchemy eval`, `releases`, `export`, `doctor`."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from alchemy.cli import app
from alchemy.corpus import CleanJob
from alchemy.manifest import HOMES
from alchemy.retention import plan_prune
from alchemy.settings import load_settings
from tests.line.running import EXAMPLES, Line, Run

pytestmark = pytest.mark.integration

Alchemy = Callable[..., Any]


@pytest.fixture
def alchemy(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alchemy]:
    """Runs a command with --json on the made line and returns its value."""
    for name in ("store", "cache", "models", "catalog"):
        monkeypatch.setenv(f"ALCHEMY_{name.upper()}", str(getattr(line.settings, name)))
    for name in ("S3_ENDPOINT", "S3_BUCKET", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Any:
        load_settings.cache_clear()
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return orjson.loads(result.stdout)

    yield run
    load_settings.cache_clear()


def test_eval_asks_the_champion(alchemy: Alchemy, first_run: Run, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    wanted = (b'"id": "q03"', b'"id": "q20"', b'"id": "q40"')
    lines = (EXAMPLES / "questions.jsonl").read_bytes().splitlines(keepends=True)
    questions.write_bytes(b"".join(line for line in lines if any(one in line for one in wanted)))
    report = alchemy("eval", str(questions))
    assert report["release"] == first_run.versions["release"]
    assert (report["answerable"], report["supported"], report["unanswerable"]) == (2, 2, 1)
    assert [row["rank"] for row in report["rows"]] == [1, 1, None]


def test_eval_prints_the_report_that_the_champion_was_released_with(alchemy: Alchemy, line: Line) -> None:
    report = alchemy("eval", "--report")
    assert report["judged"]["faiss_index"] == line.artifacts.latest("faiss_index").version
    assert report["injections"]["obeyed"] == []
    assert report["answers"]["groundedness"]["mean"] == 1.0


def test_the_release_on_record_is_the_one_that_the_run_made(alchemy: Alchemy, first_run: Run) -> None:
    shown = alchemy("releases", "show")
    assert shown["id"] == first_run.versions["release"]
    assert shown["gate"]["passed"] is True
    assert [row["id"] for row in alchemy("releases", "ls")] == [shown["id"]]


@pytest.mark.parametrize("asset", [*HOMES, "lora_adapter", "raw/git"])
def test_every_asset_can_be_exported_as_it_was_published(
    alchemy: Alchemy, line: Line, tmp_path: Path, asset: str
) -> None:
    shown = alchemy("export", asset, str(tmp_path))
    artifact = line.artifacts.latest(asset)
    assert (shown["version"], shown["files"]) == (artifact.version, len(artifact.files))
    for file in artifact.files:
        assert (Path(shown["folder"]) / file.path).stat().st_size == file.size


def test_doctor_finds_the_line_well(alchemy: Alchemy, first_run: Run) -> None:
    findings = {one["what"]: one for one in alchemy("doctor")}
    assert findings["champion"]["detail"] == first_run.versions["release"]
    assert "git" in findings["store"]["detail"]
    assert findings["model_b"]["state"] == findings["reranker"]["state"] == "ok"


def test_an_objects_impact_reaches_the_adapter_and_the_release(alchemy: Alchemy, first_run: Run) -> None:
    found = alchemy("impact", "raw/git/commits.jsonl")
    assert found["adapters"] == [f"lora_adapter/{first_run.versions['lora_adapter']}"]
    assert found["releases"] == [first_run.versions["release"]]
    assert len(found["documents"]) > 1
    assert found["unknown"] == []
    origin = alchemy("lineage", found["chunks"][0])
    assert (origin["exact"], origin["raw"]["state"]) == (True, "unchanged")
    assert origin["raw"]["key"] == "raw/git/commits.jsonl"


def test_a_prune_of_a_made_line_knows_its_results_and_keeps_what_serves(changed: tuple[Line, Run]) -> None:
    line, run = changed
    settings = line.settings
    job = CleanJob(line.store.url, None, settings.clean, settings.pseudonym_salt)
    plan = plan_prune(line.artifacts, job, keep=1, now=datetime.now(UTC) + timedelta(days=1))
    assert plan.note == ""
    assert len(plan.results) == 1  # of the page as it was before it changed
    assert run.versions["release"] in plan.releases
    assert set(line.versions().items()).isdisjoint(plan.versions)
