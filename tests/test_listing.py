"""Listings by content, uploads and exports."""

from pathlib import Path

import pytest

from alchemy.artifacts import Artifacts, Request
from alchemy.errors import BadInput
from alchemy.listing import list_raw
from alchemy.store import Store
from alchemy.upload import export_artifact, upload_raw


def test_a_listing_names_every_object_by_content(store: Store) -> None:
    store.put("raw/git/b.jsonl", b"two")
    store.put("raw/git/a/deep.jsonl", b"one")
    store.put("raw/git/.DS_Store", b"hidden")
    store.put("raw/jira/x.json", b"other")
    found = list_raw(store, "git")
    assert [(raw.key, raw.size) for raw in found] == [("raw/git/a/deep.jsonl", 3), ("raw/git/b.jsonl", 3)]
    assert found[0].sha256 == store.sha256("raw/git/a/deep.jsonl")
    assert list_raw(store, "feedback") == []


def test_an_unchanged_object_is_hashed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("raw/git/a", b"one")
    store.put("raw/git/b", b"two")
    first = list_raw(store, "git")
    hashed: list[str] = []
    real = Store.sha256
    monkeypatch.setattr(Store, "sha256", lambda self, key: hashed.append(key) or real(self, key))
    assert list_raw(store, "git") == first
    assert hashed == []
    store.put("raw/git/b", b"changed")
    assert [raw.sha256 for raw in list_raw(store, "git")] != [raw.sha256 for raw in first]
    assert hashed == ["raw/git/b"]


def test_an_object_that_goes_away_while_listing_is_not_listed(
    folder_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_store.put("raw/git/a", b"one")
    folder_store.put("raw/git/b", b"two")
    real = Store.sha256

    def vanishing(self: Store, key: str) -> str:
        self.delete("raw/git/a")
        return real(self, key)

    monkeypatch.setattr(Store, "sha256", vanishing)
    assert [raw.key for raw in list_raw(folder_store, "git")] == ["raw/git/b"]


def test_an_upload_writes_only_what_is_new_and_names_what_no_source_takes(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    for name, text in {
        "git/a.jsonl": "1",
        "jira/deep/b.json": "2",
        "git/.hidden": "3",
        "misc/x": "4",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    first = upload_raw(store, folder)
    assert first["sources"] == {
        "git": {"uploaded": 1, "unchanged": 0},
        "jira": {"uploaded": 1, "unchanged": 0},
    }
    assert first["ignored"] == ["misc"]
    (folder / "git" / "a.jsonl").write_text("changed")
    assert upload_raw(store, folder)["sources"] == {
        "git": {"uploaded": 1, "unchanged": 0},
        "jira": {"uploaded": 0, "unchanged": 1},
    }
    assert store.get("raw/git/a.jsonl") == b"changed"


def test_a_folder_without_sources_is_refused_with_their_names(folder_store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="git, jira, confluence"):
        upload_raw(folder_store, tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        upload_raw(folder_store, tmp_path / "none")


def test_an_export_has_the_names_that_people_know(artifacts: Artifacts, tmp_path: Path) -> None:
    def build(folder: Path) -> dict[str, int]:
        (folder / "part-00000.jsonl").write_text("{}\n")
        return {"rows": 1}

    made = artifacts.materialize(Request("rag_chunks", {}, "1"), build).artifact
    told = export_artifact(artifacts, made, tmp_path / "out")
    assert (tmp_path / "out" / "rag_chunks.jsonl" / "part-00000.jsonl").read_text() == "{}\n"
    assert told["files"] == 1
