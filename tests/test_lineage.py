"""What came from what, in a line that is small enough to write down."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from alchemy.artifacts import Artifact, Artifacts, Request
from alchemy.cli import app
from alchemy.comparison import Changes, compare_releases
from alchemy.errors import BadInput, NotFound
from alchemy.lineage import find_impact, trace, trace_chunk
from alchemy.records import Chunk, Document, Rejected, SftPair, fingerprint, to_line
from alchemy.release import RECORD, Release, promote, read_release, read_release_alias, release_line
from alchemy.retrieval.fuse import SearchWeights
from alchemy.settings import load_settings
from alchemy.store import Store

LOG, PAGE = "raw/git/log.jsonl", "raw/confluence/page.html"
Alchemy = Callable[..., Result]


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(Store(str(tmp_path / "store")), tmp_path / "cache")


@pytest.fixture
def alchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alchemy]:
    """Runs one `alchemy` command on the store of the test."""
    for name in ("S3_ENDPOINT", "S3_BUCKET", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALCHEMY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ALCHEMY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        load_settings.cache_clear()
        return CliRunner().invoke(app, list(arguments))

    yield run
    load_settings.cache_clear()


def value(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def document(key: str, text: str, raw_key: str, raw: bytes) -> Document:
    source = raw_key.split("/")[1]
    return Document(
        id=f"{source}:{key}",
        version=fingerprint(text),
        source=source,
        kind="page",
        key=key,
        title=f"Title of {key}",
        project="HAUL",
        text=text,
        blocks=(),
        fields={},
        metrics={},
        url="",
        updated="",
        raw_key=raw_key,
        raw_sha256=hashlib.sha256(raw).hexdigest(),
        locator="line 1",
    )


def chunk(of: Document) -> Chunk:
    """The only chunk of a document: its text without the first word."""
    start = of.text.index(" ") + 1
    same = ("source", "kind", "project", "title", "url", "raw_key", "raw_sha256", "locator")
    return Chunk(
        id=fingerprint(of.id, of.version, start),
        document_id=of.id,
        document_version=of.version,
        chunk_index=0,
        total_chunks=1,
        start=start,
        end=len(of.text),
        text=of.text[start:],
        header=of.title,
        tokens=1,
        section="",
        **{name: getattr(of, name) for name in same},
    )


def pair(of: Chunk) -> SftPair:
    return SftPair(
        id=fingerprint("pair", of.id),
        instruction="What?",
        response=of.text,
        evidence_quote=of.text,
        chunk_id=of.id,
        document_id=of.document_id,
        split="train",
        kind="fact",
        provider="template",
        project=of.project,
    )


def publish(
    artifacts: Artifacts,
    asset: str,
    inputs: Mapping[str, str],
    files: Mapping[str, bytes],
    **parameters: Any,
) -> Artifact:
    def build(folder: Path) -> dict[str, Any]:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return {}

    return artifacts.materialize(Request(asset, dict(inputs), "1", parameters), build).artifact


def index_of(chunks: list[Chunk], folder: Path) -> bytes:
    """`chunks.sqlite` as the index has it."""
    path = folder / "chunks.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE chunks (number INTEGER PRIMARY KEY, id TEXT, record BLOB)")
        rows = [(number, one.id, to_line(one)) for number, one in enumerate(chunks)]
        database.executemany("INSERT INTO chunks VALUES (?, ?, ?)", rows)
        database.commit()
    return path.read_bytes()


def run_line(
    artifacts: Artifacts,
    raw: Mapping[str, Mapping[str, str]],
    rejected: list[Rejected] | None = None,
    held_out: str = "",
    **scores: float,
) -> str:
    """Makes every asset of `raw` (object -> key of a document -> its text), and a release.

    One part for each object; of `held_out` no adapter learns. `wiki_adapter` learns from the wiki alone.
    """
    parts: list[list[Document]] = []
    for raw_key, texts in sorted(raw.items()):
        data = orjson.dumps(dict(texts))
        artifacts.store.put(raw_key, data)
        parts.append([document(key, text, raw_key, data) for key, text in texts.items()])
    listings = {}
    for source in ("git", "confluence"):
        rows = [key for key in sorted(raw) if key.startswith(f"raw/{source}/")]
        listing = publish(artifacts, f"raw/{source}", {}, {"objects.jsonl": orjson.dumps(rows)}, rows=rows)
        listings[listing.asset] = listing.version

    def lines(rows: list[list[Any]]) -> dict[str, bytes]:
        return {f"part-{n:05d}.jsonl": b"".join(map(to_line, part)) for n, part in enumerate(rows)}

    publish(artifacts, "quarantine", listings, lines([rejected or []]))
    corpus = publish(artifacts, "cleaned_corpus", listings, lines(parts))
    windows = [[chunk(one) for one in part] for part in parts]
    chunks = publish(artifacts, "rag_chunks", {"cleaned_corpus": corpus.version}, lines(windows))
    of_chunks = {"rag_chunks": chunks.version}
    flat = [one for part in windows for one in part]
    taught = b"".join(to_line(pair(one)) for one in flat if one.raw_key != held_out)
    asked = b"".join(to_line(replace(pair(one), split="eval")) for one in flat if one.raw_key == held_out)
    pairs = publish(artifacts, "sft_pairs", of_chunks, {"sft_train.jsonl": taught, "sft_eval.jsonl": asked})
    stored = {"chunks.sqlite": index_of(flat, artifacts.cache.parent)}
    index = publish(artifacts, "faiss_index", of_chunks, stored)
    of_pairs = {"sft_pairs": pairs.version}
    adapters = {}
    for name, sources in (("lora_adapter", []), ("wiki_adapter", ["confluence"])):
        learned = [pair(one).id for one in flat if not sources or one.source in sources]
        weights = {"weights": orjson.dumps(learned)}
        chosen = {"sources": sources, "projects": []}
        adapters[name] = publish(artifacts, name, of_pairs, weights, filter=chosen).version
    judged = {"faiss_index": index.version, **of_pairs, **adapters}
    report = {
        "judged": judged,
        "retrieval": {name: {"mean": scores.get(name, 0.5)} for name in ("recall_at_5", "ndcg_at_10")},
        "adapters": {},
        "leaks": 0,
    }
    evaluation = publish(artifacts, "evaluation", judged, {"report.json": orjson.dumps(report)}, **scores)
    release = Release(
        index=index.version,
        adapters=adapters,
        base_model="base",
        embedder="embedder",
        reranker="reranker",
        weights=SearchWeights(),
        prompts="1",
        evaluation=evaluation.version,
    )
    used = {"evaluation": evaluation.version, "faiss_index": index.version, **adapters}
    made = publish(artifacts, "release", used, {RECORD: release_line(release)}, release=asdict(release))
    promote(artifacts, made.version, expected=read_release_alias(artifacts, "champion"))
    return made.version


COMMITS = {LOG: {"1": "We fixed the scheduler.", "2": "We broke the lock."}}
BOTH = {**COMMITS, PAGE: {"page": "The gateway has limits."}}


def test_an_objects_impact_is_all_that_was_made_of_it_and_nothing_else(store: Store, tmp_path: Path) -> None:
    artifacts = Artifacts(store, tmp_path / "cache")
    release = run_line(artifacts, BOTH)
    log, page = find_impact(artifacts, LOG), find_impact(artifacts, PAGE)
    assert log.documents == ("git:1", "git:2")
    assert page.documents == ("confluence:page",)
    assert (len(log.chunks), len(log.pairs)) == (2, 2)
    assert not {*log.chunks, *log.pairs} & {*page.chunks, *page.pairs}
    assert log.releases == page.releases == (release,)
    assert log.present
    assert log.indexes == (f"faiss_index/{artifacts.latest('faiss_index').version}",)


def test_an_adapter_is_named_only_where_its_filter_takes_a_pair_of_the_object(artifacts: Artifacts) -> None:
    run_line(artifacts, BOTH)
    general, wiki = (f"{name}/{artifacts.latest(name).version}" for name in ("lora_adapter", "wiki_adapter"))
    assert find_impact(artifacts, LOG).adapters == (general,)
    assert find_impact(artifacts, PAGE).adapters == (general, wiki)


def test_an_adapter_did_not_come_from_pairs_that_only_judge_it(artifacts: Artifacts) -> None:
    run_line(artifacts, BOTH, held_out=PAGE)
    found = find_impact(artifacts, PAGE)
    assert (len(found.pairs), found.adapters) == (1, ())
    assert len(found.releases) == 1  # by its index


def test_what_was_made_of_a_deleted_object_is_found_in_older_versions(artifacts: Artifacts) -> None:
    old = run_line(artifacts, BOTH)
    artifacts.store.delete(PAGE)
    run_line(artifacts, COMMITS)
    found = find_impact(artifacts, PAGE)
    assert not found.present
    assert found.documents == found.chunks == found.pairs == ()
    assert found.releases == (old,)
    assert [name.partition("/")[0] for name in found.adapters] == ["lora_adapter", "wiki_adapter"]


def test_pairs_that_a_renamed_object_gave_again_came_from_both_names(artifacts: Artifacts) -> None:
    run_line(artifacts, COMMITS)
    renamed = "raw/git/renamed.jsonl"
    run_line(artifacts, {renamed: COMMITS[LOG]})
    assert len(artifacts.versions("sft_pairs")) == 1  # equal pairs; its manifest knows the old name only
    old, new = find_impact(artifacts, LOG), find_impact(artifacts, renamed)
    assert old.adapters == new.adapters != ()
    assert set(old.indexes).isdisjoint(new.indexes)


def test_an_object_that_gave_rejected_records_alone_says_how_many(artifacts: Artifacts) -> None:
    broken = "raw/git/broken.jsonl"
    row = Rejected("git", broken, "0" * 64, "line 1", "quarantined", "read", "not_json", "No JSON.")
    run_line(artifacts, COMMITS, [row, replace(row, locator="line 2")])
    found = find_impact(artifacts, broken)
    assert (found.rejected, found.documents, found.releases) == ({"quarantined": 2}, (), ())


def test_a_version_whose_input_is_gone_is_named_as_unknown(artifacts: Artifacts) -> None:
    run_line(artifacts, BOTH)
    pairs = artifacts.latest("sft_pairs")
    run_line(artifacts, COMMITS)
    artifacts.store.delete(f"{pairs.folder}/manifest.json")
    unknown = [name.partition("/")[0] for name in find_impact(artifacts, LOG).unknown]
    assert unknown == ["lora_adapter", "wiki_adapter"]


@pytest.mark.parametrize(
    ("key", "told"),
    [("raw/git/none.jsonl", "there is no such object"), ("raw/git/new.jsonl", "no run has read it")],
)
def test_of_an_object_that_nothing_came_from_it_is_said_so(artifacts: Artifacts, key: str, told: str) -> None:
    run_line(artifacts, COMMITS)
    artifacts.store.put("raw/git/new.jsonl", b"{}")
    with pytest.raises(NotFound, match=told):
        find_impact(artifacts, key)


def test_impact_prints_at_most_twenty_names_and_as_json_all(artifacts: Artifacts, alchemy: Alchemy) -> None:
    run_line(artifacts, {LOG: {str(number): f"Commit number {number}." for number in range(30)}})
    assert len(value(alchemy("impact", LOG, "--json"))["documents"]) == 30
    printed = alchemy("impact", LOG).stdout
    assert "documents: 30 (git:0, git:1, " in printed
    assert ("git:19, ..." in printed, "git:20" in printed) == (True, False)
    assert alchemy("impact", "raw/git/none.jsonl", "--json").exit_code == 1


def test_a_chunk_is_traced_to_its_exact_span_and_its_raw_bytes(store: Store, tmp_path: Path) -> None:
    artifacts = Artifacts(store, tmp_path / "cache")
    release = run_line(artifacts, BOTH)
    text, raw = BOTH[PAGE]["page"], artifacts.store.get(PAGE)
    expected = chunk(document("page", text, PAGE, raw))
    found = trace(artifacts, expected.id)
    assert (found["release"], found["exact"]) == (release, True)
    assert text[found["chunk"]["start"] : found["chunk"]["end"]] == found["chunk"]["text"]
    assert found["document"]["id"] == "confluence:page"
    assert found["raw"] == {
        "source": "confluence",
        "key": PAGE,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "locator": "line 1",
        "state": "unchanged",
    }


def test_a_trace_says_whether_the_raw_object_still_has_those_bytes(artifacts: Artifacts) -> None:
    run_line(artifacts, BOTH)
    chunk_id = find_impact(artifacts, PAGE).chunks[0]
    artifacts.store.put(PAGE, b"other bytes")
    assert trace_chunk(artifacts, chunk_id)["raw"]["state"] == "changed"
    artifacts.store.delete(PAGE)
    assert trace_chunk(artifacts, chunk_id)["raw"]["state"] == "gone"


def test_a_span_that_is_not_the_chunks_text_is_not_exact(artifacts: Artifacts) -> None:
    run_line(artifacts, BOTH)
    chunk_id = find_impact(artifacts, PAGE).chunks[0]
    corpus = artifacts.latest("cleaned_corpus")
    for path in artifacts.parts(corpus, "part-"):
        path.write_bytes(path.read_bytes().replace(b"The gateway", b"Our gateway is"))
    assert trace_chunk(artifacts, chunk_id)["exact"] is False
    artifacts.store.delete(f"{corpus.folder}/manifest.json")
    assert trace_chunk(artifacts, chunk_id)["exact"] is None


def leaves(node: dict[str, Any]) -> set[str]:
    """The assets of a tree that were made from nothing."""
    found = {one for used in node["inputs"] for one in leaves(used)}
    return found or {node["asset"]}


def test_an_adapter_is_traced_down_to_the_listings_of_raw_objects(artifacts: Artifacts) -> None:
    run_line(artifacts, BOTH)
    tree = trace(artifacts, "wiki_adapter")
    assert tree == artifacts.lineage("wiki_adapter", artifacts.latest("wiki_adapter").version)
    assert leaves(tree) == {"raw/git", "raw/confluence"}
    assert leaves(trace(artifacts, f"lora_adapter/{artifacts.latest('lora_adapter').version}")) == leaves(
        tree
    )
    listing = artifacts.latest("raw/git")
    assert trace(artifacts, f"raw/git/{listing.version}") == trace(artifacts, "raw/git")


def test_an_input_that_is_gone_stands_in_the_tree_as_missing(artifacts: Artifacts) -> None:
    run_line(artifacts, BOTH)
    artifacts.store.delete(f"{artifacts.latest('cleaned_corpus').folder}/manifest.json")
    chunks = trace(artifacts, "lora_adapter")["inputs"][0]["inputs"][0]
    assert chunks["asset"] == "rag_chunks"
    assert "no such object" in chunks["inputs"][0]["missing"]


def test_of_an_answer_the_message_names_the_url_to_ask(artifacts: Artifacts) -> None:
    with pytest.raises(BadInput, match="GET /v1/answers/ans-12/lineage"):
        trace(artifacts, "ans-12")


def test_what_is_neither_a_chunk_nor_an_artifact_is_not_found(artifacts: Artifacts) -> None:
    with pytest.raises(NotFound, match="no champion"):
        trace(artifacts, "nothing")
    run_line(artifacts, COMMITS)
    with pytest.raises(NotFound, match="a chunk's id, an asset or ASSET/VERSION"):
        trace(artifacts, "nothing")
    with pytest.raises(NotFound, match="no such object"):
        trace(artifacts, "lora_adapter/nothing")


def test_people_get_a_tree_that_tells_each_version_once(artifacts: Artifacts, alchemy: Alchemy) -> None:
    run_line(artifacts, BOTH)
    lines = alchemy("lineage", "release").stdout.splitlines()
    corpus = f"cleaned_corpus/{artifacts.latest('cleaned_corpus').version}"
    assert lines[0].startswith("release/")
    assert sum(corpus in line and "see above" not in line for line in lines) == 1
    assert max(len(line) - len(line.lstrip()) for line in lines) >= 8
    chunk_id = find_impact(artifacts, PAGE).chunks[0]
    assert value(alchemy("lineage", chunk_id, "--json"))["raw"]["key"] == PAGE
    assert f'"key":"{PAGE}"' in alchemy("lineage", chunk_id).stdout


NOTHING = Changes((), (), ())
EDITED = {LOG: {"1": "We fixed the planner.", "3": "We added a queue."}}


def test_the_documents_and_chunks_of_two_releases_are_compared(artifacts: Artifacts) -> None:
    before, after = run_line(artifacts, BOTH), run_line(artifacts, EDITED)
    found = compare_releases(artifacts, before, after)
    assert found.documents == Changes(("git:3",), ("confluence:page", "git:2"), ("git:1",))
    assert found.chunks == Changes(("git:3#0",), ("confluence:page#0", "git:2#0"), ("git:1#0",))
    back = compare_releases(artifacts, after, before)
    assert back.documents == Changes(("confluence:page", "git:2"), ("git:3",), ("git:1",))


def test_scores_and_parts_are_told_only_where_they_differ(artifacts: Artifacts) -> None:
    before = run_line(artifacts, BOTH)
    after = run_line(artifacts, BOTH, recall_at_5=0.75)
    found = compare_releases(artifacts, before, after)
    assert found.scores == {"recall_at_5": (0.5, 0.75)}
    assert found.parts.keys() == {"evaluation"}
    assert (found.documents, found.chunks) == (NOTHING, NOTHING)


def test_a_release_does_not_differ_from_itself(artifacts: Artifacts) -> None:
    release = run_line(artifacts, BOTH)
    found = compare_releases(artifacts, release, release)
    assert (found.parts, found.scores, found.documents, found.chunks) == ({}, {}, NOTHING, NOTHING)


def test_part_files_that_both_releases_have_are_not_read(artifacts: Artifacts) -> None:
    before, after = run_line(artifacts, COMMITS), run_line(artifacts, BOTH)
    for version in (before, after):
        index = artifacts.get("faiss_index", read_release(artifacts, version).index)
        chunks = artifacts.get("rag_chunks", index.inputs["rag_chunks"])
        for path in artifacts.parts(chunks):
            if b"git:1" in path.read_bytes():
                path.write_bytes(b"not to be read")
    assert compare_releases(artifacts, before, after).chunks == Changes(("confluence:page#0",), (), ())


def test_what_was_pruned_is_told_and_the_rest_is_compared(artifacts: Artifacts) -> None:
    before = run_line(artifacts, BOTH)
    gone = artifacts.latest("cleaned_corpus").folder
    after = run_line(artifacts, EDITED)
    artifacts.store.delete(f"{gone}/manifest.json")
    found = compare_releases(artifacts, before, after)
    assert found.documents is None
    assert found.chunks is not None
    assert found.chunks.added == ("git:3#0",)
    assert [gone in why for why in found.missing] == [True]


def test_releases_are_compared_by_aliases_and_beginnings_of_ids(
    artifacts: Artifacts, alchemy: Alchemy
) -> None:
    before, after = run_line(artifacts, BOTH), run_line(artifacts, EDITED)
    by_id = value(alchemy("releases", "diff", before[:8], after, "--json"))
    assert (by_id["before"], by_id["after"]) == (before, after)
    assert value(alchemy("releases", "diff", "previous", "champion", "--json")) == by_id
    printed = alchemy("releases", "diff", "previous", "champion").stdout
    assert "documents removed: 2 (confluence:page, git:2)" in printed
    assert f"index: {by_id['parts']['index'][0]} -> {by_id['parts']['index'][1]}" in printed
    refused = alchemy("releases", "diff", "", "champion", "--json")
    assert refused.exit_code == 1
    assert before in refused.stderr and after in refused.stderr
