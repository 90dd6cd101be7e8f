"""Training pairs within the line: what the asset tells, and `alchemy refine` with a model behind a server."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import yaml

from alchemy.catalog import load_catalog
from alchemy.records import SftPair, read_lines
from tests.line.running import ROOT, Line, Run
from tests.synthesis.conftest import LlmServer, Reply, grounded, is_judged, word_by_word

pytestmark = pytest.mark.integration


@pytest.fixture
def llm():
    server = LlmServer()
    yield server
    server.stop()


def test_the_pairs_metadata_has_the_funnel_as_a_table(first_run: Run) -> None:
    metadata = first_run.metadata["sft_pairs"]
    lines = metadata["funnel"].splitlines()
    assert lines[0] == "| stage | rejected | left | reasons |"
    assert lines[2] == f"| written | | {metadata['written']} | |"
    assert lines[-1].startswith(f"| **kept** | | {metadata['kept']} |")
    assert metadata["written"] == metadata["kept"] + sum(metadata["rejected"].values())


def test_the_pairs_check_proves_all_of_them(first_run: Run) -> None:
    proven = first_run.check_metadata["sft_pairs:pairs_proven"]
    assert proven["pairs"] == first_run.metadata["sft_pairs"]["kept"]


def test_refine_has_a_model_write_at_most_so_many_pairs_and_judges_them(
    own_line: Line, llm: LlmServer, tmp_path: Path
) -> None:
    def model(request: dict) -> Reply:
        return word_by_word(request) if is_judged(request) else grounded(request)

    llm.reply = model
    catalog = tmp_path / "models.yaml"
    rows = yaml.safe_load(Path(own_line.settings.catalog).read_text(encoding="utf-8"))
    rows["model_a"] |= {"base_url": llm.url, "api_key": "sk-secret"}  # its provider is `template`
    catalog.write_text(yaml.safe_dump(rows), encoding="utf-8")
    assert not load_catalog(catalog).model_a.uses_llm

    settings = own_line.settings
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("S3_ENDPOINT", "S3_BUCKET")},
        "ALCHEMY_STORE": str(settings.store),
        "ALCHEMY_CACHE": str(settings.cache),
        "ALCHEMY_MODELS": str(settings.models),
        "ALCHEMY_CATALOG": str(catalog),
        "ALCHEMY_SYNTHESIS__JUDGE": "true",
        "DAGSTER_HOME": str(tmp_path / "dagster"),
    }
    command = [sys.executable, "-m", "alchemy.cli", "refine", "--synthesis", "--max_samples", "12", "--json"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = orjson.loads(done.stdout)
    assert made["provider"] == "deepseek/deepseek-chat"
    assert made["kept"] == 12
    assert made["cost_usd"] > 0

    artifact = own_line.artifacts.latest("sft_pairs")
    assert artifact.version == made["version"]
    assert artifact.metrics["judge"]["planted"] > 0
    assert artifact.metrics["calls"] == llm.calls
    pairs = [
        pair for path in own_line.artifacts.parts(artifact, "sft_") for pair in read_lines(SftPair, path)
    ]
    assert len(pairs) == 12
    assert {pair.provider for pair in pairs} == {"deepseek/deepseek-chat"}
    assert "sk-secret" not in done.stdout + done.stderr


def test_a_judge_without_anybody_to_call_is_refused(own_line: Line) -> None:
    options = own_line.settings.synthesis.model_copy(update={"judge": True})
    settings = own_line.settings.model_copy(update={"synthesis": options})
    run = Line.of(settings).materialize("sft_pairs")
    assert not run.success
    assert "ALCHEMY_SYNTHESIS__JUDGE needs model_a with an api_key in models.yaml" in run.error


def test_refine_without_a_corpus_says_what_to_run(tmp_path: Path) -> None:
    environment = {**os.environ, "ALCHEMY_STORE": str(tmp_path / "store"), "DAGSTER_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "alchemy.cli", "refine"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cleaned_corpus: never materialized" in done.stderr
