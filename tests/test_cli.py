"""The command line: JSON for programs, one line and exit code 1 for what went wrong."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from alchemy import demo
from alchemy.artifacts import Artifacts, Request
from alchemy.cli import app
from alchemy.doctor import examine
from alchemy.errors import BadInput, NotFound
from alchemy.gate import Decision
from alchemy.models import PACKAGED
from alchemy.release import RECORD, Release, note_event, promote, read_release_alias, release_line
from alchemy.retrieval.fuse import SearchWeights
from alchemy.settings import Settings, load_settings
from alchemy.store import Store
from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
Alchemy = Callable[..., Result]


@pytest.fixture
def alchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alchemy]:
    """Runs one `alchemy` command on an empty store in a folder."""
    for name in ("S3_ENDPOINT", "S3_BUCKET", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALCHEMY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ALCHEMY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ALCHEMY_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("ALCHEMY_CATALOG", str(ROOT / "models.yaml"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        load_settings.cache_clear()
        return CliRunner().invoke(app, list(arguments))

    yield run
    load_settings.cache_clear()


@pytest.fixture
def stored(tmp_path: Path) -> Artifacts:
    """The artifacts behind the commands."""
    return Artifacts(Store(str(tmp_path / "store")), tmp_path / "cache")


def value(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def complaint(result: Result) -> str:
    """The one line of a failed command."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("alchemy: ")
    assert result.stderr.count("\n") == 1
    return str(result.stderr)


def make_release(artifacts: Artifacts, index: str, *reasons: str) -> str:
    """A release on record that the gate passed, or refused for the reasons."""
    release = Release(
        index=index,
        adapters={"lora_adapter": "a" * 20},
        base_model="base",
        embedder="embedder",
        reranker="reranker",
        weights=SearchWeights(),
        prompts="1",
        evaluation="e" * 20,
    )

    def build(folder: Path) -> dict[str, Any]:
        (folder / RECORD).write_bytes(release_line(release))
        return {"rows": 1}

    request = Request("release", {}, "1", {"release": asdict(release)})
    version = artifacts.materialize(request, build).artifact.version
    note_event(artifacts, version, "judged", champion=None, **asdict(Decision(not reasons, reasons)))
    return version


def test_upload_counts_what_it_copied_and_what_was_there(alchemy: Alchemy, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "git").mkdir(parents=True)
    (raw / "photos").mkdir()
    (raw / "git" / "log.jsonl").write_text("{}\n")
    (raw / "git" / ".hidden").write_text("no data")
    first = value(alchemy("upload", str(raw), "--json"))
    assert first == {"sources": {"git": {"uploaded": 1, "unchanged": 0}}, "ignored": ["photos"]}
    again = value(alchemy("upload", str(raw), "--json"))
    assert again["sources"]["git"] == {"uploaded": 0, "unchanged": 1}
    assert (tmp_path / "store" / "raw" / "git" / "log.jsonl").read_text() == "{}\n"


def test_upload_of_what_is_no_raw_folder_is_refused_in_one_line(alchemy: Alchemy, tmp_path: Path) -> None:
    assert "no such folder" in complaint(alchemy("upload", str(tmp_path / "none"), "--json"))
    (tmp_path / "empty").mkdir()
    assert "holds none of the folders git" in complaint(alchemy("upload", str(tmp_path / "empty")))


def test_doctor_names_what_is_missing_and_how_to_get_it(alchemy: Alchemy, stored: Artifacts) -> None:
    findings = {one["what"]: one for one in value(alchemy("doctor", "--json"))}
    assert findings["python"]["state"] == "ok"
    assert findings["champion"]["state"] == findings["model_b"]["state"] == "missing"
    assert "alchemy models pull" in findings["model_b"]["detail"]
    assert "alchemy upload FOLDER" in findings["store"]["detail"]
    release = make_release(stored, "i" * 20)
    promote(stored, release, expected=None)
    findings = {one["what"]: one for one in value(alchemy("doctor", "--json"))}
    assert (findings["champion"]["state"], findings["champion"]["detail"]) == ("ok", release)


def test_doctor_exits_1_where_something_is_broken(alchemy: Alchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALCHEMY_CATALOG", "nowhere.yaml")
    result = alchemy("doctor", "--json")
    assert result.exit_code == 1
    broken = [one for one in orjson.loads(result.stdout) if one["state"] == "broken"]
    assert [one["what"] for one in broken] == ["models.yaml"]


def test_doctor_never_raises_for_what_it_finds(tmp_path: Path) -> None:
    settings = Settings(store="gopher://x", catalog=tmp_path / "none.yaml", cache=tmp_path, models=tmp_path)
    states = {finding.what: finding.state for finding in examine(settings)}
    assert states["store"] == states["models.yaml"] == "broken"


def test_releases_are_listed_shown_promoted_and_rolled_back(alchemy: Alchemy, stored: Artifacts) -> None:
    assert value(alchemy("releases", "ls", "--json")) == []
    first, second = make_release(stored, "1" * 20), make_release(stored, "2" * 20, "recall@5 is too low")
    promote(stored, first, expected=None)
    rows = {row["id"]: row for row in value(alchemy("releases", "ls", "--json"))}
    assert rows.keys() == {first, second}
    assert rows[first]["aliases"] == ["champion"]
    assert rows[second]["gate"]["reasons"] == ["recall@5 is too low"]

    assert value(alchemy("releases", "show", "--json"))["id"] == first
    assert value(alchemy("releases", "show", second, "--json"))["index"] == "2" * 20

    assert value(alchemy("releases", "promote", second, "--json")) == {"champion": second}
    alias = orjson.loads(stored.store.get("releases/aliases/champion"))
    assert alias == {"release": second, "note": "forced by hand"}
    assert value(alchemy("releases", "show", "previous", "--json"))["id"] == first

    assert value(alchemy("releases", "rollback", "--json")) == {"champion": first}
    assert value(alchemy("releases", "pin", second[:8], "--json")) == {"pinned": second}
    assert value(alchemy("releases", "show", "pinned", "--json"))["id"] == second
    assert value(alchemy("releases", "unpin", "--json")) == {"pinned": None}
    assert "no release is pinned" in complaint(alchemy("releases", "unpin"))
    champion = read_release_alias(stored, "champion")
    assert champion is not None
    assert champion.release == first


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["releases", "show"], "there is no champion yet"),
        (["releases", "show", "nothing"], "no such object"),
        (["releases", "promote", "nothing"], "no such object"),
        (["releases", "promote", "candidate"], "there is no candidate yet"),
        (["releases", "rollback"], "no previous release"),
        (["export", "cleaned_corpus", "out"], "never materialized"),
        (["eval", "--report"], "there is no champion yet"),
        (["eval"], "the store has no eval/questions.jsonl"),
        (["eval", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
    ],
)
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_what_is_not_there_is_said_in_one_line(
    alchemy: Alchemy, arguments: list[str], told: str, as_json: list[str]
) -> None:
    assert told in complaint(alchemy(*arguments, *as_json))


def test_eval_without_a_champion_and_of_a_broken_file_is_refused(alchemy: Alchemy, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "q1", "question": "Why?", "answerable": false, "supporting": []}\n')
    assert "there is no champion yet" in complaint(alchemy("eval", str(questions), "--json"))
    questions.write_text('{"id": "q1"}\n')
    assert "line 1: not a question" in complaint(alchemy("eval", str(questions), "--json"))


def test_a_wrong_setting_is_named_without_its_value(
    alchemy: Alchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALCHEMY_WORKERS", "many-secrets")
    result = alchemy("releases", "ls")
    assert result.exit_code == 1
    assert "workers" in result.stderr
    assert "many-secrets" not in result.stderr


def test_export_writes_plain_files_under_the_names_that_people_know(
    alchemy: Alchemy, stored: Artifacts, tmp_path: Path
) -> None:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "part-00000.jsonl").write_text("{}\n")
        return {"rows": 1}

    made = stored.materialize(Request("rag_chunks", {}, "1"), build).artifact
    shown = value(alchemy("export", "rag_chunks", str(tmp_path / "out"), "--json"))
    assert shown == {
        "folder": str(tmp_path / "out" / "rag_chunks.jsonl"),
        "version": made.version,
        "files": 1,
    }
    assert (tmp_path / "out" / "rag_chunks.jsonl" / "part-00000.jsonl").read_text() == "{}\n"


def test_models_are_listed_with_what_is_here(alchemy: Alchemy) -> None:
    rows = value(alchemy("models", "ls", "--json"))
    assert {row["model"] for row in rows} == {one.model_id for one in PACKAGED}
    assert not any(row["fetched"] for row in rows)
    assert all(row["package"].count("==") == 1 and row["license"] for row in rows)


@pytest.mark.parametrize("arguments", [["doctor"], ["models", "ls"], ["releases", "ls"]])
def test_without_json_people_get_a_table(alchemy: Alchemy, stored: Artifacts, arguments: list[str]) -> None:
    make_release(stored, "1" * 20)
    result = alchemy(*arguments)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) > 1
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(result.stdout)


def test_every_command_has_json(alchemy: Alchemy) -> None:
    commands = ("upload", "doctor", "serve", "demo", "eval", "export")
    groups = (
        "releases ls",
        "releases show",
        "releases pin",
        "releases promote",
        "releases rollback",
        "releases unpin",
        "models ls",
        "models pull",
    )
    for command in (*commands, *groups):
        assert "--json" in alchemy(*command.split(), "--help").stdout


def test_the_demo_says_which_port_is_in_use(alchemy: Alchemy, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = complaint(alchemy("demo", "--exit", "--port", str(port)))
        assert f"port {port} is in use; choose others with --ui-port and --port" in told
        assert "is in use" in complaint(alchemy("demo", "--ui-port", str(port), "--port", "0"))
    assert list(tmp_path.iterdir()) == []  # it is said before anything is done
    demo._require_free(free_ports(1)[0])


LOG = "2026-11-20 19:43:49 +0000 - dagster"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"{LOG} - INFO - __ASSET_JOB - 56b9 - evaluation - questions asked: 7 of 8\n",
         "  evaluation: questions asked: 7 of 8"),
        (f"{LOG} - DEBUG - __ASSET_JOB - 56b9 - 12 - raw__git - STEP_SUCCESS - Finished execution of step.\n",
         "  Finished execution of step."),
        (f"{LOG} - DEBUG - __ASSET_JOB - 56b9 - 12 - raw__git - STEP_START - Started.\n", None),
        (f"{LOG} - ERROR - __ASSET_JOB - 56b9 - 12 - RUN_FAILURE - It failed.\n", "  It failed."),
        ("Loading weights: 100%\n", None),
        ("a - b - c - d - e\n", None),
        ("\n", None),
    ],
)  # fmt: skip
def test_of_dagsters_log_people_see_progress_and_the_end_of_every_step(line: str, shown: str | None) -> None:
    assert demo._shown(line) == shown


def test_the_demo_puts_its_questions_beside_the_sample_data(tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "store"), s3_endpoint=None, s3_bucket=None)
    told: list[str] = []
    demo._upload(settings, ROOT / "examples" / "raw", told.append)
    files = sum(path.is_file() for path in (ROOT / "examples" / "raw").rglob("*"))
    assert told == [
        f"raw data: {files} files of git, jira, confluence, documents, database, feedback "
        f"in {tmp_path / 'store'}"
    ]
    store = Store(str(tmp_path / "store"))
    assert store.get("eval/questions.jsonl") == (ROOT / "examples" / "questions.jsonl").read_bytes()
    with pytest.raises(BadInput, match="no such folder"):
        demo._upload(settings, tmp_path / "nothing", told.append)


def test_the_demo_does_not_overwrite_a_dagster_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    home = demo._dagster_home()
    assert "telemetry" in (home / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text("mine")
    assert (demo._dagster_home() / "dagster.yaml").read_text() == "mine"


def test_the_latest_of_what_was_never_made_is_not_found(stored: Artifacts) -> None:
    with pytest.raises(NotFound, match="dagster asset materialize --select rag_chunks"):
        stored.latest("rag_chunks")
