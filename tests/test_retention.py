"""What a prune deletes, and that nothing which is still needed is ever among it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from alchemy.artifacts import Artifact, Artifacts, Draft, Request
from alchemy.assembly import wash
from alchemy.cli import app
from alchemy.corpus import CLEANER_VERSION, CleanJob
from alchemy.engine import PythonEngine
from alchemy.errors import NotFound, Unavailable
from alchemy.lineage import known_assets
from alchemy.listing import list_raw, write_listing
from alchemy.records import SOURCES, fingerprint
from alchemy.release import (
    RECORD,
    Release,
    list_releases,
    point,
    promote,
    read_release_alias,
    release_line,
    rollback,
)
from alchemy.retention import Plan, plan_prune, prune, reachable, recent
from alchemy.retrieval.fuse import SearchWeights
from alchemy.settings import CleanOptions, load_settings
from alchemy.store import Store
from tests.test_corpus import commit

OPTIONS = CleanOptions(part_bytes=1)  # every object in a part of its own
LATER = datetime.now(UTC) + timedelta(days=1)  # when all that a test makes is old


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return artifacts_in(tmp_path)


def artifacts_in(folder: Path) -> Artifacts:
    return Artifacts(Store(str(folder / "store")), folder / "cache")


def job_of(artifacts: Artifacts, salt: bytes = b"test salt") -> CleanJob:
    return CleanJob(artifacts.store.url, artifacts.store.endpoint, OPTIONS, salt)


def put(artifacts: Artifacts, number: int, text: str | None) -> None:
    """Gives the raw object of that number another text; None removes it."""
    key = f"raw/git/log{number}.jsonl"
    if text is None:
        artifacts.store.delete(key)
    else:
        artifacts.store.put(key, commit(number, f"Part {number} says {text} from now on."))


def publish(
    artifacts: Artifacts, asset: str, inputs: dict[str, str], build: Callable[[Draft], Any], **parameters: Any
) -> Artifact:
    request = Request(asset, inputs, CLEANER_VERSION, parameters)

    def noted(draft: Draft) -> dict[str, Any]:
        build(draft)
        return {}

    return artifacts.materialize_draft(request, noted).artifact


def run_wash(artifacts: Artifacts) -> Artifact:
    """Lists and cleans what lies under raw/, as the assets do."""
    listings, objects = {}, []
    for source in SOURCES:
        found = list_raw(artifacts.store, source)
        objects += found
        listing = publish(
            artifacts,
            f"raw/{source}",
            {},
            lambda draft, found=found: write_listing(draft.folder, found),  # type: ignore[misc]
            listing=[[one.key, one.sha256] for one in found],
        )
        listings[listing.asset] = listing.version
    job = job_of(artifacts)

    def build(draft: Draft) -> None:
        wash(artifacts, job, objects, PythonEngine(1).clean, draft)

    options = {"options": OPTIONS.model_dump(), "salt": job.salt_digest}
    return publish(artifacts, "cleaned_corpus", listings, build, **options)


def run_line(artifacts: Artifacts, *, serves: bool = True) -> str:
    """A run of the line with a made-up index and adapter; returns the release's id."""
    corpus = run_wash(artifacts)

    def copy(part: Path, target: Path) -> dict[str, Any]:
        target.write_bytes(part.read_bytes())
        return {}

    def writes(value: object) -> Callable[[Draft], Any]:
        return lambda draft: (draft.folder / "content").write_bytes(orjson.dumps(value))

    of_corpus = {"cleaned_corpus": corpus.version}
    chunks = publish(artifacts, "rag_chunks", of_corpus, lambda draft: draft.derive(corpus, copy))
    of_chunks = {"rag_chunks": chunks.version}
    index = publish(artifacts, "faiss_index", of_chunks, writes(["index", of_chunks])).version
    adapter = publish(artifacts, "lora_adapter", of_chunks, writes(["adapter", of_chunks])).version
    judged = {"faiss_index": index, "lora_adapter": adapter}
    evaluation = publish(artifacts, "evaluation", judged, writes(judged)).version
    record = Release(
        index, {"lora_adapter": adapter}, "base", "embedder", "reranker", SearchWeights(), "1", evaluation
    )
    made = publish(
        artifacts,
        "release",
        {**judged, "evaluation": evaluation},
        lambda draft: (draft.folder / RECORD).write_bytes(release_line(record)),
        release=asdict(record),
    ).version
    champion = read_release_alias(artifacts, "champion")
    if serves and (champion is None or champion.release != made):
        promote(artifacts, made, expected=champion)
    return made


def run_with(artifacts: Artifacts, text: str, **options: bool) -> str:
    """A run after object 0 got another text."""
    put(artifacts, 0, text)
    return run_line(artifacts, **options)


def planned(artifacts: Artifacts, keep: int = 1, now: datetime = LATER) -> Plan:
    return plan_prune(artifacts, job_of(artifacts), keep=keep, now=now)


def pruned(artifacts: Artifacts, keep: int = 1) -> Plan:
    return prune(artifacts, planned(artifacts, keep))


def verify_with_inputs(artifacts: Artifacts, asset: str, version: str) -> None:
    """The version and all that it was made from are there, whole."""
    artifact = artifacts.get(asset, version)
    artifacts.verify(artifact)
    for name, used in artifact.inputs.items():
        verify_with_inputs(artifacts, name, used)


def verify_all(artifacts: Artifacts) -> None:
    """Every latest and every release that is left is whole, with all that it was made from."""
    for asset in known_assets(artifacts):
        found = artifacts.find(asset)
        if found:
            verify_with_inputs(artifacts, asset, found.version)
    for one in list_releases(artifacts):
        verify_with_inputs(artifacts, "release", one.version)


CHANGES = st.lists(
    st.tuples(st.integers(0, 3), st.none() | st.sampled_from(["yes", "no", "perhaps"])), max_size=3
)
RUNS = st.lists(st.tuples(CHANGES, st.booleans()), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None)
@example(runs=[([], False), ([(0, "yes")], False), ([(0, None)], False)], keep=1, back=False, after=[])
@given(runs=RUNS, keep=st.integers(1, 3), back=st.booleans(), after=CHANGES)
def test_a_prune_never_harms_what_is_kept_nor_the_next_run(
    runs: list[tuple[list[tuple[int, str | None]], bool]],
    keep: int,
    back: bool,
    after: list[tuple[int, str | None]],
) -> None:
    with TemporaryDirectory() as name, TemporaryDirectory() as other:
        artifacts, scratch = artifacts_in(Path(name)), artifacts_in(Path(other))
        put(artifacts, 9, "nothing")
        for changes, serves in runs:
            for change in changes:
                put(artifacts, *change)
            run_line(artifacts, serves=serves)
        if back and read_release_alias(artifacts, "previous"):
            rollback(artifacts)
        aliases = {
            meta.key: artifacts.store.get(meta.key) for meta in artifacts.store.objects("releases/aliases")
        }
        made = len(list_releases(artifacts))
        done = pruned(artifacts, keep)
        assert [one.version for one in list_releases(artifacts)] == list(done.releases)
        assert len(done.releases) >= min(keep, made)
        assert all(artifacts.store.get(key) == data for key, data in aliases.items())
        verify_all(artifacts)
        assert planned(artifacts, keep).size == 0  # nothing is left for a second one
        for change in after:
            put(artifacts, *change)
        corpus = run_wash(artifacts)
        for meta in artifacts.store.objects("raw"):
            scratch.store.put(meta.key, artifacts.store.get(meta.key))
        assert corpus.version == run_wash(scratch).version
        assert artifacts.latest("quarantine").version == scratch.latest("quarantine").version
        verify_all(artifacts)


def test_versions_that_only_dropped_releases_were_made_from_are_deleted(store: Store, tmp_path: Path) -> None:
    artifacts = Artifacts(store, tmp_path / "cache")
    releases = [run_with(artifacts, text) for text in ("one", "two", "three", "four")]
    before = {meta.key for meta in artifacts.store.objects("")}
    done = pruned(artifacts)
    assert done.releases == tuple(releases[2:])  # the champion and the one before it
    left = {meta.key for meta in artifacts.store.objects("")}
    assert done.counts() == {
        **dict.fromkeys(["cleaned_corpus", "evaluation", "faiss_index", "lora_adapter", "rag_chunks"], 2),
        "raw/git": 1,  # the empty quarantine of the first run is the latest still, and was made from another
        "release": 2,
    }
    assert left < before
    assert done.size > 0
    with pytest.raises(NotFound):
        artifacts.get("release", releases[0])
    assert not any(releases[0] in key for key in left if not key.startswith("releases/history/"))


def test_a_plan_deletes_nothing(artifacts: Artifacts) -> None:
    for text in ("one", "two", "three"):
        run_with(artifacts, text)
    before = artifacts.store.objects("")
    assert planned(artifacts).versions
    assert artifacts.store.objects("") == before


def test_what_was_the_newest_within_the_grace_stays(artifacts: Artifacts) -> None:
    for text in ("one", "two", "three"):
        run_with(artifacts, text)
    plan = planned(artifacts, now=datetime.now(UTC))
    assert (plan.versions, plan.results, len(plan.releases)) == ({}, (), 3)


def version_at(minutes: int) -> Artifact:
    made = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    return Artifact("metrics", str(minutes), (), {}, "1", {}, {}, "", made.isoformat(timespec="milliseconds"))


@pytest.mark.parametrize(("cutoff", "kept"), [(5, [0, 10, 20]), (10, [10, 20]), (15, [10, 20]), (99, [20])])
def test_an_old_version_is_recent_while_its_successor_is_young(cutoff: int, kept: list[int]) -> None:
    versions = [version_at(minutes) for minutes in (0, 10, 20)]
    found = recent(versions, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=cutoff))
    assert [int(one.version) for one in found] == kept


def test_all_that_roots_were_made_from_is_reachable_and_what_is_gone_ends_the_way() -> None:
    inputs = {("a", "1"): {"b": "1"}, ("b", "1"): {"c": "1"}, ("a", "2"): {"b": "2"}}
    assert reachable(inputs, [("a", "1")]) == {("a", "1"), ("b", "1"), ("c", "1")}


def test_a_release_stays_while_any_alias_names_it(artifacts: Artifacts) -> None:
    named = run_with(artifacts, "one")
    for text in ("two", "three", "four"):
        run_with(artifacts, text)
    point(artifacts, "pinned", named, None)
    assert named in pruned(artifacts).releases
    verify_with_inputs(artifacts, "release", named)


def test_the_releases_of_the_last_events_stay(artifacts: Artifacts) -> None:
    old = run_with(artifacts, "one")
    others = [run_with(artifacts, text) for text in ("two", "three", "four")]
    promote(artifacts, old, expected=read_release_alias(artifacts, "champion"))
    promote(artifacts, others[2], expected=read_release_alias(artifacts, "champion"))
    assert pruned(artifacts, keep=2).releases == (old, others[2])


def test_a_version_that_an_alias_names_meanwhile_comes_back(artifacts: Artifacts) -> None:
    first = run_with(artifacts, "one")
    for text in ("two", "three"):
        run_with(artifacts, text)
    plan = planned(artifacts)
    assert ("release", first) in plan.versions
    run_with(artifacts, "one", serves=False)  # publishes the content of old versions again
    promote(artifacts, first, expected=read_release_alias(artifacts, "champion"))
    done = prune(artifacts, plan)
    assert ("release", first) not in done.versions
    verify_all(artifacts)
    verify_with_inputs(artifacts, "release", first)


def test_a_version_that_a_run_has_used_meanwhile_comes_back_with_its_inputs(artifacts: Artifacts) -> None:
    run_with(artifacts, "one")
    old = artifacts.latest("cleaned_corpus")
    for text in ("two", "three", "four"):
        run_with(artifacts, text)
    plan = planned(artifacts)
    assert ("cleaned_corpus", old.version) in plan.versions
    made = publish(artifacts, "metrics", {"cleaned_corpus": old.version}, lambda draft: None)
    done = prune(artifacts, plan)
    assert done.versions.keys() == plan.versions.keys() - {("cleaned_corpus", old.version)}
    verify_with_inputs(artifacts, "metrics", made.version)


def test_a_release_that_is_being_deleted_is_not_promoted(artifacts: Artifacts) -> None:
    release = run_with(artifacts, "one", serves=False)
    artifacts.store.delete(f"releases/{release}/manifest.json")
    with pytest.raises(NotFound):
        promote(artifacts, release, expected=None)
    assert read_release_alias(artifacts, "champion") is None


@pytest.mark.parametrize("deletions", range(0, 24, 3))
def test_an_interrupted_prune_leaves_no_half_version_and_is_finished_by_the_next(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    for text in ("one", "two", "three"):
        run_with(artifacts, text)
    plan, left = planned(artifacts), deletions
    delete = Store.delete

    def fails(store: Store, key: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unavailable("the store is gone")
        delete(store, key)

    with monkeypatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(Store, "delete", fails)
        prune(artifacts, plan)
    for asset in known_assets(artifacts):
        for one in artifacts.versions(asset):
            artifacts.verify(one)
    verify_all(artifacts)
    pruned(artifacts)
    folders = [one.folder for one in (*plan.versions.values(), *plan.results)]
    assert [meta for folder in folders for meta in artifacts.store.objects(folder)] == []


def results(artifacts: Artifacts) -> set[str]:
    return {meta.key.split("/")[2] for meta in artifacts.store.objects("processed/objects")}


def test_results_of_objects_that_are_listed_no_more_are_deleted(artifacts: Artifacts) -> None:
    put(artifacts, 1, "something")
    run_with(artifacts, "one")
    old = results(artifacts)
    put(artifacts, 1, None)
    run_line(artifacts)
    assert len(old) == 2
    assert len(pruned(artifacts).results) == 1
    assert len(results(artifacts)) == 1
    assert results(artifacts) < old


def test_results_that_are_younger_than_the_grace_stay(artifacts: Artifacts) -> None:
    run_with(artifacts, "one")
    artifacts.store.put("processed/objects/0123-disappeared/summary.json", b"{}")
    soon = datetime.now(UTC)
    assert planned(artifacts, now=soon).results == ()
    assert [one.folder for one in planned(artifacts).results] == ["processed/objects/0123-disappeared"]


@pytest.mark.parametrize("change", ["salt", "listing"])
def test_results_are_left_alone_where_the_corpus_was_made_otherwise(
    artifacts: Artifacts, change: str
) -> None:
    run_with(artifacts, "one")
    job = job_of(artifacts, b"another salt" if change == "salt" else b"test salt")
    if change == "listing":
        put(artifacts, 0, None)
        publish(artifacts, "raw/git", {}, lambda draft: write_listing(draft.folder, []), listing=[])
    plan = plan_prune(artifacts, job, keep=1, now=LATER)
    assert plan.results == ()
    assert "was not made from the current listings with these settings" in plan.note


def test_a_folder_that_never_had_a_manifest_is_left_alone(artifacts: Artifacts) -> None:
    run_with(artifacts, "one")
    key = f"index/{fingerprint('unfinished')}/vectors.faiss"
    artifacts.store.put(key, b"half")
    pruned(artifacts)
    assert artifacts.store.get(key) == b"half"


@pytest.fixture
def alchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    for name in ("S3_ENDPOINT", "S3_BUCKET", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALCHEMY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ALCHEMY_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> str:
        load_settings.cache_clear()
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.stdout

    yield run
    load_settings.cache_clear()


def test_the_command_tells_what_it_deleted(alchemy: Callable[..., str], artifacts: Artifacts) -> None:
    releases = [run_with(artifacts, text) for text in ("one", "two", "three", "four")]
    young = orjson.loads(alchemy("releases", "prune", "--keep", "1", "--json"))
    assert (young["versions"], young["releases_kept"]) == (0, releases)

    planned = alchemy("releases", "prune", "--keep", "1", "--grace-minutes", "0", "--dry-run")
    assert "deleted: no" in planned
    assert len(list_releases(artifacts)) == 4

    done = orjson.loads(alchemy("releases", "prune", "--keep", "1", "--grace-minutes", "0", "--json"))
    assert (done["deleted"], done["by_asset"]["release"]) == (True, 2)
    assert f"versions: {done['versions']}" in planned
    assert f"bytes: {done['bytes']}" in planned
    assert [one.version for one in list_releases(artifacts)] == done["releases_kept"] == releases[2:]
    assert "with these settings" in done["note"]  # the store was washed with another salt
    verify_all(artifacts)
