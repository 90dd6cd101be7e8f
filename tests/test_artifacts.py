"""Versions, aliases and lineage: immutable, content-addressed, moved by compare-and-swap."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alchemy.artifacts import MANIFEST, Artifact, Artifacts, Draft, Request, home, move_alias, read_alias
from alchemy.errors import Conflict, ContractBroken, NotFound


def writes(**files: str) -> Callable[[Path], dict[str, Any]]:
    """A build that writes the files (`__` in a name is a folder) and counts its calls."""

    def build(folder: Path) -> dict[str, Any]:
        build.calls += 1  # type: ignore[attr-defined]
        for name, text in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return {"rows": len(files)}

    build.calls = 0  # type: ignore[attr-defined]
    return build


def request(asset: str = "metrics", code: str = "1", **inputs: str) -> Request:
    return Request(asset, inputs, code, {"option": 1})


def test_a_published_artifact_is_found_with_its_files_inputs_and_metrics(artifacts: Artifacts) -> None:
    made = artifacts.materialize(request(cleaned_corpus="v0"), writes(a="1", sub__b="22"))
    found = artifacts.latest("metrics")
    assert found == made.artifact
    assert [file.path for file in found.files] == ["a", "sub/b"]
    assert found.inputs == {"cleaned_corpus": "v0"}
    assert found.metrics == {"rows": 2}
    assert found.size == 3
    folder = artifacts.fetch(found)
    assert (folder / "sub" / "b").read_text() == "22"
    artifacts.verify(found)


def test_the_same_request_is_answered_without_work(artifacts: Artifacts) -> None:
    build = writes(a="1")
    first = artifacts.materialize(request(x="1"), build)
    again = artifacts.materialize(request(x="1"), build)
    assert (first.reused, again.reused) == (False, True)
    assert again.artifact == first.artifact
    assert build.calls == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("changed", [request(x="2"), request(code="2", x="1")])
def test_another_input_or_code_version_is_other_work(artifacts: Artifacts, changed: Request) -> None:
    build = writes(a="1")
    artifacts.materialize(request(x="1"), build)
    assert not artifacts.materialize(changed, build).reused


def test_equal_content_has_one_version_whatever_made_it(artifacts: Artifacts) -> None:
    first = artifacts.materialize(request(x="1"), writes(a="same")).artifact
    second = artifacts.materialize(request(x="2"), writes(a="same")).artifact
    assert second.version == first.version
    assert second.inputs == {"x": "1"}  # the lineage stays that of the run that made it
    assert artifacts.materialize(request(x="2"), writes(a="never")).reused


def test_a_build_that_fails_leaves_the_previous_version(artifacts: Artifacts) -> None:
    artifacts.materialize(request(x="1"), writes(a="good"))

    def fails(folder: Path) -> dict[str, Any]:
        (folder / "a").write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        artifacts.materialize(request(x="2"), fails)
    assert (artifacts.fetch(artifacts.latest("metrics")) / "a").read_text() == "good"
    assert len(artifacts.versions("metrics")) == 1


def test_a_version_without_a_manifest_does_not_exist(artifacts: Artifacts) -> None:
    artifact = artifacts.materialize(request(x="1"), writes(a="1")).artifact
    artifacts.store.put(f"{home('metrics')}/half/part-00000", b"...")
    assert [one.version for one in artifacts.versions("metrics")] == [artifact.version]
    with pytest.raises(NotFound):
        artifacts.get("metrics", "half")


def test_an_asset_that_was_never_made_says_how_to_make_it(artifacts: Artifacts) -> None:
    assert artifacts.find("rag_chunks") is None
    with pytest.raises(NotFound, match="dagster asset materialize --select rag_chunks"):
        artifacts.latest("rag_chunks")


def test_changed_bytes_are_told_by_the_file(artifacts: Artifacts) -> None:
    artifact = artifacts.materialize(request(x="1"), writes(a="1", b="2")).artifact
    artifacts.store.put(f"{artifact.folder}/b", b"tampered")
    with pytest.raises(ContractBroken, match=f"{artifact.folder}/b"):
        artifacts.verify(artifact)


def test_lineage_walks_to_the_raw_listing(artifacts: Artifacts) -> None:
    raw = artifacts.materialize(Request("raw/git", {}, "1"), writes(o="r")).artifact
    corpus = artifacts.materialize(Request("cleaned_corpus", {"raw/git": raw.version}, "1"), writes(o="c"))
    chunks = artifacts.materialize(
        Request("rag_chunks", {"cleaned_corpus": corpus.artifact.version}, "1"), writes(o="h")
    )
    tree = artifacts.lineage("rag_chunks", chunks.artifact.version)
    assert tree["inputs"][0]["asset"] == "cleaned_corpus"
    assert tree["inputs"][0]["inputs"][0] == {
        "asset": "raw/git",
        "version": raw.version,
        "created_at": raw.created_at,
        "run_id": "",
        "inputs": [],
    }


def test_an_alias_moves_only_from_where_it_was_seen(artifacts: Artifacts) -> None:
    key = "releases/aliases/champion"
    assert read_alias(artifacts.store, key) == (None, None)
    move_alias(artifacts.store, key, {"release": "A"}, None)
    value, etag = read_alias(artifacts.store, key)
    assert value == {"release": "A"}
    move_alias(artifacts.store, key, {"release": "B"}, etag)
    with pytest.raises(Conflict):
        move_alias(artifacts.store, key, {"release": "C"}, etag)
    with pytest.raises(Conflict):
        move_alias(artifacts.store, key, {"release": "C"}, None)
    assert read_alias(artifacts.store, key)[0] == {"release": "B"}


def test_a_cached_copy_of_a_remote_artifact_is_verified(artifacts: Artifacts) -> None:
    artifact = artifacts.materialize(request(x="1"), writes(a="right")).artifact
    if artifacts.store.local_path("x") is not None:
        pytest.skip("a folder store needs no copy")
    artifacts.store.put(f"{artifact.folder}/a", b"wrong")
    with pytest.raises(ContractBroken):
        artifacts.fetch(artifact)
    artifacts.store.put(f"{artifact.folder}/a", b"right")
    assert (artifacts.fetch(artifact) / "a").read_text() == "right"
    assert artifacts.store.objects(artifact.folder + f"/{MANIFEST}") is not None


# ------------------------------------------------------------------------------------------------ drafts


def derives(source: Artifact, made: list[str], context: object = None) -> Callable[[Draft], dict[str, Any]]:
    """A build of one upper-case part for each part of `source`; says which parts it made."""

    def make(part: Path, target: Path) -> dict[str, Any]:
        made.append(part.read_text())
        target.write_text(part.read_text().upper())
        return {"rows": len(part.read_text())}

    def build(draft: Draft) -> dict[str, Any]:
        counts = draft.derive(source, make, suffix=".txt", context=context)
        text = "".join(path.read_text() for path in draft.parts())  # new ones and kept ones
        return {"rows": sum(count["rows"] for count in counts), "text": text}

    return build


def parts(*texts: str) -> Callable[[Path], dict[str, Any]]:
    def build(folder: Path) -> dict[str, Any]:
        for number, text in enumerate(texts):
            (folder / f"part-{number:05d}.jsonl").write_text(text)
        return {}

    return build


def test_only_parts_that_are_new_are_made_and_the_others_keep_their_bytes(artifacts: Artifacts) -> None:
    made: list[str] = []
    for version, texts in enumerate([("a", "b", "c"), ("new", "a", "c", "c"), ("c",)]):
        source = artifacts.materialize(request("rag_chunks", str(version)), parts(*texts)).artifact
        wanted = request(rag_chunks=source.version)
        found = artifacts.materialize_draft(wanted, derives(source, made)).artifact
        assert found.metrics == {"rows": sum(map(len, texts)), "text": "".join(texts).upper()}
        assert [path.read_text() for path in artifacts.parts(found)] == [text.upper() for text in texts]
        artifacts.verify(found)
    assert made == ["a", "b", "c", "new"]


@pytest.mark.parametrize("change", ["code", "context"])
def test_other_code_or_another_context_makes_every_part_again(artifacts: Artifacts, change: str) -> None:
    made: list[str] = []
    source = artifacts.materialize(request("rag_chunks"), parts("a", "b")).artifact
    first = artifacts.materialize_draft(request(rag_chunks="1"), derives(source, made))
    code, context = ("2", None) if change == "code" else ("1", ["names"])
    wanted = request(code=code, rag_chunks="2")
    again = artifacts.materialize_draft(wanted, derives(source, made, context))
    assert made == ["a", "b", "a", "b"]
    assert again.artifact.version == first.artifact.version
    # The same bytes came from two requests; the next draft knows what the newer one was made from.
    artifacts.materialize_draft(request(code=code, rag_chunks="3"), derives(source, made, context))
    assert made == ["a", "b", "a", "b"]


def test_a_version_whose_notes_are_lost_is_made_again_in_full(artifacts: Artifacts) -> None:
    made: list[str] = []
    source = artifacts.materialize(request("rag_chunks"), parts("a", "b")).artifact
    first = artifacts.materialize_draft(request(rag_chunks="1"), derives(source, made)).artifact
    for meta in artifacts.store.objects(f"{first.folder}/made_from"):
        artifacts.store.delete(meta.key)
    again = artifacts.materialize_draft(request(rag_chunks="2"), derives(source, made)).artifact
    assert (again.version, made) == (first.version, ["a", "b", "a", "b"])
