"""The whole line, once with the Python engine on a folder: what it makes, and what a second run costs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from alchemy import engine
from alchemy.artifacts import Artifacts
from alchemy.asking import ask_questions, load_questions
from alchemy.catalog import load_catalog
from alchemy.corpus import Cleaned, CleanJob, Piece
from alchemy.parts import read_parts
from alchemy.records import SOURCES, SftPair
from alchemy.release import read_release, read_release_alias
from alchemy.retrieval.embed import Embedder
from tests.line.running import ASSETS, EXAMPLES, SMALL, Line, Run

pytestmark = pytest.mark.integration

VOCABULARY = {"uri", "sha256", "dagster/row_count", "bytes", "seconds", "peak_memory_mb"}
WARNS = "cleaned_corpus:quarantined"  # the sample holds broken files on purpose
CHECKS = {
    "cleaned_corpus:conservation",
    "cleaned_corpus:corpus_leaks",
    "metrics:feature_drift",
    "metrics:metrics_schema",
    "rag_chunks:chunk_leaks",
    "rag_chunks:exact_spans",
    "sft_pairs:pair_leaks",
    "sft_pairs:pairs_proven",
    "sft_pairs:split_leakage",
    "release:gate",
}


def test_one_run_makes_every_asset_and_all_checks_pass(first_run: Run) -> None:
    assert first_run.success, first_run.error
    assert set(first_run.metadata) == set(ASSETS)
    assert first_run.checks == dict.fromkeys(CHECKS, True) | {WARNS: False}
    assert first_run.reused() == set()


@pytest.mark.parametrize("asset", ASSETS)
def test_every_materialization_speaks_the_one_vocabulary(line: Line, first_run: Run, asset: str) -> None:
    metadata, artifact = first_run.metadata[asset], line.artifacts.latest(asset)
    assert metadata.keys() >= VOCABULARY
    assert metadata["uri"] == f"{line.settings.store_url}/{artifact.folder}"
    assert metadata["sha256"] == first_run.versions[asset] == artifact.version
    assert metadata["bytes"] == artifact.size > 0
    assert metadata["dagster/row_count"] > 0
    assert metadata["peak_memory_mb"] > 0
    line.artifacts.verify(artifact)


def test_the_adapters_metadata_shows_how_it_was_trained_and_what_that_changed(first_run: Run) -> None:
    metadata = first_run.metadata["lora_adapter"]
    assert metadata["plot"].startswith("![loss curve](data:image/png;base64,iVBOR")
    heading, _, *samples = metadata["sample"].splitlines()
    assert heading == "| question | wanted | before | after |"
    assert len(samples) == 3
    assert metadata["pairs"] == first_run.versions["sft_pairs"]
    assert metadata["tokens_per_second"] > 0
    assert metadata["training_memory_mb"] > 0


def test_an_adapter_of_some_sources_learns_from_their_pairs_alone(own_line: Line, tmp_path: Path) -> None:
    rows = yaml.safe_load(own_line.settings.catalog.read_text(encoding="utf-8"))
    catalog = tmp_path / "models.yaml"
    catalog.write_text(yaml.safe_dump(rows | {"adapters": {"support": {"sources": ["jira"]}}}))
    line = Line.of(own_line.settings.model_copy(update={"catalog": catalog}))
    run = line.materialize("support")
    assert run.success, run.error
    pairs = list(read_parts(SftPair, line.artifacts.parts(line.artifacts.latest("sft_pairs"), "sft_train")))
    of_jira = [pair for pair in pairs if pair.document_id.startswith("jira:")]
    assert 0 < len(of_jira) < len(pairs)
    assert run.metadata["support"]["dagster/row_count"] == len(of_jira)


def test_the_general_adapter_can_begin_with_the_plain_text_of_the_corpus(own_line: Line) -> None:
    train = own_line.settings.train.model_copy(update={"pretraining_tokens": 2000})
    line = Line.of(own_line.settings.model_copy(update={"train": train}))
    run = line.materialize("lora_adapter")
    assert run.success, run.error
    assert 1500 < run.metadata["lora_adapter"]["pretraining_tokens"] <= 2000


def test_the_evaluation_shows_its_report_with_pictures_and_keeps_its_times_apart(first_run: Run) -> None:
    metadata = first_run.metadata["evaluation"]
    for told in ("## Retrieval", "| citation precision |", "| lora_adapter |", "| injected documents | 30 |"):
        assert told in metadata["report"]
    assert metadata["plot"].startswith("![measures with their intervals](data:image/png;base64,iVBOR")
    assert metadata["injections_obeyed"] == metadata["leaks"] == 0
    assert metadata["groundedness"] == 1.0
    assert 0 < metadata["search_seconds_p50"] <= metadata["search_seconds_p99"]
    assert "seconds" not in metadata["report"]


def test_samples_are_tables_of_at_most_ten_rows(first_run: Run) -> None:
    sampled = {asset: values["sample"] for asset, values in first_run.metadata.items() if "sample" in values}
    assert sampled.keys() >= {"cleaned_corpus", "rag_chunks", "sft_pairs", *(f"raw/{one}" for one in SOURCES)}
    assert all(2 < len(table.splitlines()) <= 12 for table in sampled.values())


def test_what_could_not_be_read_is_counted_and_the_rest_of_it_kept(line: Line, first_run: Run) -> None:
    metadata = first_run.metadata["cleaned_corpus"]
    assert metadata["objects"] == metadata["pieces_cleaned"] == len(SMALL)
    assert metadata["rejected_by_reason"].keys() >= {"broken", "truncated"}
    assert "| documents |" in metadata["conservation"]
    quarantine = line.artifacts.latest("quarantine")
    assert quarantine.metrics["rows"] == sum(metadata["rejected_by_reason"].values())


def test_the_first_release_is_the_champion(line: Line, first_run: Run) -> None:
    alias = read_release_alias(line.artifacts, "champion")
    assert alias is not None
    assert alias.release == first_run.versions["release"]
    release = read_release(line.artifacts, alias.release)
    assert release.index == first_run.versions["faiss_index"]
    assert release.adapters == {"lora_adapter": first_run.versions["lora_adapter"]}
    assert release.evaluation == first_run.versions["evaluation"]


def test_the_champion_finds_passages_that_are_known_to_hold_the_answer(line: Line) -> None:
    asked = load_questions(line.artifacts, EXAMPLES / "questions.jsonl")
    wanted = [one for one in asked if one.id in ("q03", "q04", "q20", "q26", "q29")]  # one of each kind
    answers = ask_questions(line.artifacts, load_catalog(line.settings.catalog), line.settings, wanted)
    assert [row.id for row in answers.rows if row.rank is None] == []
    assert answers.supported >= 4


def test_the_lineage_of_a_release_reaches_the_raw_listings(line: Line, first_run: Run) -> None:
    tree = line.artifacts.lineage("release", first_run.versions["release"])
    found = dict(_walk(tree))
    assert found == first_run.versions
    assert {run["run_id"] for run in _nodes(tree)} == {first_run.run_id}


def test_a_run_with_nothing_changed_reuses_every_asset_and_works_on_nothing(
    own_line: Line, first_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing has changed, so there is nothing to do")

    monkeypatch.setattr(engine, "clean_piece", fail)
    monkeypatch.setattr(Embedder, "_embed", fail)
    monkeypatch.setattr("assets.training.train_lora", fail)
    before = own_line.store.objects("")
    run = own_line.materialize()
    assert run.success, run.error
    assert run.reused() == set(ASSETS)
    assert run.versions == first_run.versions
    # A touched folder has new etags, so the digest cache may be written; nothing else is.
    assert [one for one in own_line.store.objects("") if one not in before and _is_data(one.key)] == []


def test_one_changed_object_alone_is_cleaned_again(changed: tuple[Line, Run], first_run: Run) -> None:
    line, run = changed
    assert run.success, run.error
    assert run.metadata["cleaned_corpus"]["pieces_cleaned"] == 1
    assert run.metadata["cleaned_corpus"]["objects"] == len(SMALL)
    assert run.metadata["cleaned_corpus"]["parts_written"] == 1 < run.metadata["cleaned_corpus"]["parts"]
    assert 0 < run.metadata["faiss_index"]["embedded"] < run.metadata["faiss_index"]["dagster/row_count"] / 3
    unchanged = {f"raw/{source}" for source in SOURCES} - {"raw/confluence"}
    assert run.reused() == unchanged
    assert all(run.versions[asset] == first_run.versions[asset] for asset in unchanged)
    assert line.artifacts.latest("cleaned_corpus").inputs["raw/confluence"] == run.versions["raw/confluence"]


def test_an_object_that_is_gone_takes_its_documents_with_it(own_line: Line, first_run: Run) -> None:
    own_line.store.delete("raw/feedback/feedback.jsonl")
    run = own_line.materialize("raw/feedback", "cleaned_corpus")
    assert run.success, run.error
    assert run.metadata["cleaned_corpus"]["pieces_cleaned"] == 0
    assert _rows(run) == _rows(first_run) - own_line_feedback(own_line.artifacts)


def test_only_the_new_object_reaches_the_engine(own_line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    clean = engine.clean_piece

    def counted(job: CleanJob, piece: Piece) -> Cleaned:
        seen.append(piece.raw.key)
        return clean(job, piece)

    monkeypatch.setattr(engine, "clean_piece", counted)
    own_line.store.put(
        "raw/documents/note.md", b"# Spare gateways\n\nThey stand in the cabinet of hall three.\n"
    )
    run = own_line.materialize("raw/documents", "cleaned_corpus")
    assert run.success, run.error
    assert seen == ["raw/documents/note.md"]


def own_line_feedback(artifacts: Artifacts) -> int:
    """How many documents the feedback object gave in the line's first run."""
    first = artifacts.versions("cleaned_corpus")[0]
    data = b"".join(path.read_bytes() for path in artifacts.parts(first, "part-"))
    return data.count(b'"source":"feedback"')


def _rows(run: Run) -> int:
    return int(run.metadata["cleaned_corpus"]["dagster/row_count"])


def _is_data(key: str) -> bool:
    return not key.startswith("state/")


def _nodes(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return [tree, *(node for one in tree["inputs"] for node in _nodes(one))]


def _walk(tree: dict[str, Any]) -> list[tuple[str, str]]:
    return [(node["asset"], node["version"]) for node in _nodes(tree)]
