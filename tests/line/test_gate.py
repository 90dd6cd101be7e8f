"""The gate end to end: a candidate that is worse or broken is refused with reasons; the champion stays."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest

from alchemy.artifacts import MANIFEST, Artifacts, Request
from alchemy.catalog import load_catalog
from alchemy.gate import Policy
from alchemy.parts import read_parts
from alchemy.records import Chunk
from alchemy.release import Alias, describe, list_releases, promote, read_release, read_release_alias
from alchemy.retrieval.embed import Embedder
from alchemy.retrieval.index import build_index
from tests.line.running import ROOT, Line, Run

pytestmark = pytest.mark.integration

JUDGED = ("evaluation", "release")


def champion(artifacts: Artifacts) -> Alias:
    alias = read_release_alias(artifacts, "champion")
    assert alias is not None
    return alias


def publish_index(line: Line, chunks: list[Chunk]) -> str:
    """Makes an index of other chunks the latest one, as a faulty stage would."""
    embedder = Embedder(load_catalog(line.settings.catalog).model_b, line.settings.models)

    def build(folder: Path) -> dict[str, Any]:
        return {"rows": len(chunks), **build_index(folder, chunks, {}, embedder)}

    latest = line.artifacts.latest("faiss_index")
    request = Request("faiss_index", latest.inputs, "faulty", latest.parameters)
    return line.artifacts.materialize(request, build).artifact.version


@contextmanager
def republished(line: Line, asset: str) -> Iterator[Path]:
    """A copy of the asset's files; what the block changes in it becomes the latest version."""
    latest = line.artifacts.latest(asset)
    with TemporaryDirectory() as name:
        folder = Path(name) / "copy"
        shutil.copytree(line.artifacts.fetch(latest), folder, ignore=shutil.ignore_patterns(MANIFEST))
        yield folder

        def build(target: Path) -> dict[str, Any]:
            shutil.copytree(folder, target, dirs_exist_ok=True)
            return {"rows": latest.metrics["rows"]}

        line.artifacts.materialize(Request(asset, latest.inputs, "faulty", {}), build)


def chunks_of(line: Line) -> list[Chunk]:
    return list(read_parts(Chunk, line.artifacts.parts(line.artifacts.latest("rag_chunks"), "part-")))


def assert_refused(line: Line, run: Run, before: Alias, *reasons: str) -> None:
    """The check is red with its reasons, the release is on record, the champion has not moved."""
    assert not run.success
    assert run.checks == {"release:gate": False}
    told = run.check_metadata["release:gate"]["reasons"]
    assert len(told) >= len(reasons)
    for reason in reasons:
        assert any(reason in one for one in told), told
    assert champion(line.artifacts) == before
    candidate = read_release_alias(line.artifacts, "candidate")
    assert candidate is not None
    assert candidate.release == run.versions["release"] != before.release
    record = describe(line.artifacts, candidate.release)
    assert record["gate"]["passed"] is False
    assert record["gate"]["reasons"] == told
    assert record["gate"]["champion"] == before.release
    assert record["gate"]["policy"] == Policy().model_dump()
    assert record["gate"]["policy_file"] == "gate.toml"
    assert record["aliases"] == ["candidate"]


def test_an_adapter_that_learnt_nothing_is_refused(own_line: Line) -> None:
    before = champion(own_line.artifacts)
    train = own_line.settings.train.model_copy(update={"learning_rate": 1e-12})
    lazy = Line.of(own_line.settings.model_copy(update={"train": train}))
    run = lazy.materialize("lora_adapter", *JUDGED)
    assert (
        run.versions["lora_adapter"] != read_release(lazy.artifacts, before.release).adapters["lora_adapter"]
    )
    assert_refused(lazy, run, before, "over the champion's")


def test_an_index_that_lost_most_of_its_passages_is_refused(own_line: Line) -> None:
    before = champion(own_line.artifacts)
    publish_index(own_line, list(islice(chunks_of(own_line), 5)))
    run = own_line.materialize(*JUDGED)
    assert_refused(own_line, run, before, "recall@5", "nDCG@10")


def test_a_secret_that_reached_the_index_is_refused(own_line: Line) -> None:
    before = champion(own_line.artifacts)
    planted = orjson.loads((ROOT / "examples" / "planted.json").read_bytes())
    secret = next(one["value"] for one in planted if one["kind"] == "github_token")
    first, *rest = chunks_of(own_line)
    text = f"{first.text} The token is {secret}."
    publish_index(own_line, [replace(first, text=text), *rest])
    run = own_line.materialize(*JUDGED)
    assert_refused(own_line, run, before, "1 secrets or personal data are left")


def test_an_adapter_with_a_pickle_and_weights_of_nothing_is_refused(own_line: Line) -> None:
    """It cannot be judged, and that is on record too: no stage fails before the gate can say why."""
    before = champion(own_line.artifacts)
    with republished(own_line, "lora_adapter") as folder:
        (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
        weights = folder / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    run = own_line.materialize(*JUDGED)
    assert_refused(own_line, run, before, "adapter_model.bin is a pickle")
    report = run.metadata["evaluation"]["report"]
    assert "| lora_adapter |" in report
    assert "refused" in report


def test_pairs_that_judge_and_teach_at_once_are_refused(own_line: Line) -> None:
    before = champion(own_line.artifacts)
    with republished(own_line, "sft_pairs") as folder:
        taught = (folder / "sft_train.jsonl").read_bytes()
        (folder / "sft_train.jsonl").write_bytes(taught + (folder / "sft_holdout.jsonl").read_bytes())
    run = own_line.materialize("lora_adapter", *JUDGED)
    assert_refused(own_line, run, before, "held-out documents are in the training pairs too")


def test_an_index_with_broken_bytes_makes_no_release_at_all(own_line: Line) -> None:
    before, releases = champion(own_line.artifacts), list_releases(own_line.artifacts)
    with republished(own_line, "faiss_index") as folder:
        vectors = folder / "vectors.faiss"
        vectors.write_bytes(vectors.read_bytes()[:1000])
    run = own_line.materialize(*JUDGED)
    assert not run.success
    assert "vectors.faiss" in run.error
    assert set(run.metadata) == set()
    assert champion(own_line.artifacts) == before
    assert list_releases(own_line.artifacts) == releases


def test_an_index_that_scores_the_same_is_released_as_itself(own_line: Line) -> None:
    """Equal numbers are not equal things: the release names the index that was judged, not one before it."""
    before = champion(own_line.artifacts)
    with republished(own_line, "faiss_index") as folder:
        (folder / "note.txt").write_text("another version that finds the same")
    version = own_line.artifacts.latest("faiss_index").version
    assert version != read_release(own_line.artifacts, before.release).index
    run = own_line.materialize(*JUDGED)
    assert run.success, run.error
    assert read_release(own_line.artifacts, champion(own_line.artifacts).release).index == version
    previous = read_release_alias(own_line.artifacts, "previous")
    assert previous is not None
    assert previous.release == before.release


def test_a_decision_without_a_policy_file_says_so(own_line: Line, tmp_path: Path) -> None:
    bare = Line.of(own_line.settings.model_copy(update={"gate": tmp_path / "none.toml"}))
    with republished(bare, "faiss_index") as folder:
        (folder / "note.txt").write_text("another version that finds the same")
    run = bare.materialize(*JUDGED)
    assert run.success, run.error
    judged = describe(bare.artifacts, champion(bare.artifacts).release)["gate"]
    assert judged["policy"] == Policy().model_dump()
    assert judged["policy_file"] == f"{tmp_path / 'none.toml'} is missing: built-in numbers"


def test_a_wrong_policy_stops_the_release_and_names_the_entry(own_line: Line, tmp_path: Path) -> None:
    before = champion(own_line.artifacts)
    (tmp_path / "gate.toml").write_text("min_recall_at_5 = 50\n")
    wrong = Line.of(own_line.settings.model_copy(update={"gate": tmp_path / "gate.toml"}))
    run = wrong.materialize("release")
    assert not run.success
    assert "min_recall_at_5: Input should be less than or equal to 1" in run.error
    assert champion(own_line.artifacts) == before


def test_what_the_gate_refused_can_be_forced_and_taken_back(own_line: Line) -> None:
    before = champion(own_line.artifacts)
    publish_index(own_line, list(islice(chunks_of(own_line), 5)))
    run = own_line.materialize(*JUDGED)
    refused = run.versions["release"]
    promote(own_line.artifacts, refused, expected=before, note="forced by hand")
    assert describe(own_line.artifacts, refused)["aliases"] == ["champion", "candidate"]
    assert describe(own_line.artifacts, refused)["gate"]["passed"] is False
    previous = read_release_alias(own_line.artifacts, "previous")
    assert previous is not None
    assert previous.release == before.release


def test_a_promotion_that_another_one_overtook_loses(own_line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a release is judged, somebody promotes another: the judged one must not overwrite that."""
    import assets.release

    train = own_line.settings.train.model_copy(update={"seed": 18})
    other = Line.of(own_line.settings.model_copy(update={"train": train}))
    decide = assets.release.decide
    before = champion(other.artifacts)

    def overtaken(*args: Any) -> Any:
        promote(other.artifacts, before.release, expected=champion(other.artifacts), note="by hand")
        return decide(*args)

    monkeypatch.setattr(assets.release, "decide", overtaken)
    run = other.materialize("lora_adapter", *JUDGED)
    assert not run.success
    assert "another promotion won" in run.error
    assert champion(other.artifacts).release == before.release
