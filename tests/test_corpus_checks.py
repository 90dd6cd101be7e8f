"""The asset checks of the corpus, against artifacts that were washed or forged for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetCheckResult, AssetCheckSeverity

from alchemy.artifacts import Artifacts, Request
from alchemy.records import Chunk, from_line, to_line
from alchemy.settings import Settings
from alchemy.store import Store
from assets.checks import chunk_leaks, conservation, quarantined
from resources.store import StoreResource
from tests.serving.conftest import make_chunk
from tests.test_corpus import commit, washed


@pytest.fixture
def resource(folder_store: Store, tmp_path: Path) -> StoreResource:
    return StoreResource(url=folder_store.url, cache=str(tmp_path / "cache"))


def result(of: Any) -> AssetCheckResult:
    assert isinstance(of, AssetCheckResult)
    return of


def test_few_quarantined_records_pass_and_are_shown_with_what_to_do(
    folder_store: Store, resource: StoreResource
) -> None:
    lines = [commit(number) for number in range(40)]
    folder_store.put("raw/git/log.jsonl", b"".join([*lines, b'{"broken": token=hunter2hunter2\n']))
    washed(folder_store)
    shown = result(quarantined(resource))
    assert shown.passed
    assert shown.metadata["share"].value == {"git": round(1 / 41, 4)}
    assert "| git | not_json | 1 | Compare the sample" in str(shown.metadata["reasons"].value)
    assert "| raw/git/log.jsonl | line 41 | not_json |" in str(shown.metadata["sample"].value)
    assert result(conservation(resource)).passed


def test_a_source_that_loses_more_than_a_twentieth_is_a_warning(
    folder_store: Store, resource: StoreResource
) -> None:
    folder_store.put("raw/git/log.jsonl", b"".join(commit(number) for number in range(40)))
    folder_store.put("raw/documents/empty.txt", b"")
    folder_store.put("raw/documents/note.txt", b"The scheduler waits for its own lock and never answers.")
    washed(folder_store)
    shown = result(quarantined(resource))
    assert (shown.passed, shown.severity) == (False, AssetCheckSeverity.WARN)
    assert shown.metadata["share"].value == {"documents": 0.5, "git": 0.0}


@pytest.mark.parametrize("field", ["text", "header", "title", "url"])
def test_a_secret_in_any_field_of_a_chunk_is_found(field: str, tmp_path: Path) -> None:
    clean = make_chunk("The gateway retries three times.")
    secret = "ghp_" + "a1B2" * 9
    leaking = from_line(
        Chunk, to_line(clean).replace(f'"{field}":"'.encode(), f'"{field}":"{secret} '.encode())
    )
    for chunk, passes in ((clean, True), (leaking, False)):
        store = StoreResource(url=str(tmp_path / f"store-{passes}"), cache=str(tmp_path / "cache"))
        publish(store.artifacts, chunk)
        shown = result(chunk_leaks(store, Settings()))
        assert shown.passed is passes
        assert secret not in str(shown.metadata)


def test_a_version_whose_context_the_header_cuts_off_is_no_leak(resource: StoreResource) -> None:
    section = "WebSphere versions < 6.1.0.29 > No feature pack"
    chunk = replace(make_chunk("See below."), section=section, header="confluence | …sions < 6.1.0.29 > No")
    publish(resource.artifacts, chunk)
    assert result(chunk_leaks(resource, Settings())).passed
    publish(resource.artifacts, replace(chunk, header="confluence | …sions < 6.1.0.30 > No"))
    assert not result(chunk_leaks(resource, Settings())).passed


def publish(artifacts: Artifacts, chunk: Chunk) -> None:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "part-00000.jsonl").write_bytes(to_line(chunk))
        return {"rows": 1}

    artifacts.materialize(Request("rag_chunks", {"chunk": chunk.header}, "1"), build)
