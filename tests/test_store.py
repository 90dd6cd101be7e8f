"""The store's contract, on a folder and on a real S3 server."""

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alchemy.errors import BadConfig, BadInput, Conflict, NotFound, Unavailable
from alchemy.store import Store


def test_what_is_put_is_read_back_whole_in_ranges_and_as_a_stream(store: Store) -> None:
    data = bytes(range(256)) * 5000
    store.put("a/b.bin", data)
    assert store.get("a/b.bin") == data
    assert store.get_range("a/b.bin", 255, 258) == b"\xff\x00\x01"
    assert b"".join(store.stream("a/b.bin", chunk_bytes=4096)) == data
    assert store.sha256("a/b.bin") == hashlib.sha256(data).hexdigest()


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert list(store.stream("empty")) in ([], [b""])
    meta = store.head("empty")
    assert meta is not None
    assert meta.size == 0


def test_a_missing_key_is_not_found_and_has_no_head(store: Store) -> None:
    with pytest.raises(NotFound, match="nope"):
        store.get("nope")
    assert store.head("nope") is None
    store.delete("nope")


def test_create_refuses_an_existing_key(store: Store) -> None:
    store.create("k", b"1")
    with pytest.raises(Conflict):
        store.create("k", b"2")
    assert store.get("k") == b"1"


def test_update_wins_only_at_the_etag_that_was_read(store: Store) -> None:
    store.create("k", b"1")
    data, etag = store.get_with_etag("k")
    assert data == b"1"
    store.update("k", b"22", etag)
    with pytest.raises(Conflict):
        store.update("k", b"333", etag)
    assert store.get("k") == b"22"


def test_of_many_racing_updates_exactly_one_wins(store: Store) -> None:
    store.create("k", b"start")
    _, etag = store.get_with_etag("k")
    winners: list[int] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        try:
            store.update("k", f"value {number}".encode(), etag)
            winners.append(number)
        except Conflict:
            pass

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert store.get("k") == f"value {winners[0]}".encode()


def test_listing_is_sorted_by_key_bytes_and_stays_inside_the_folder(store: Store) -> None:
    keys = ["raw/git/a.txt", "raw/git/a/b", "raw/git/a-b", "raw/git/ü", "raw/git2/x", "raw/jira/z"]
    for key in keys:
        store.put(key, b"x")
    found = [meta.key for meta in store.objects("raw/git")]
    assert found == sorted(keys[:4], key=str.encode)
    assert store.folders("raw") == ["git", "git2", "jira"]
    assert store.objects("raw/none") == []


def test_the_etag_changes_with_the_content(store: Store) -> None:
    store.put("k", b"one")
    before = store.head("k")
    store.put("k", b"two!")
    after = store.head("k")
    assert before is not None
    assert after is not None
    assert before.etag != after.etag


def test_copy_download_and_upload_keep_the_bytes(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"z" * 3_000_000)
    store.put("from", path)
    store.copy("from", "to/there")
    store.download("to/there", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == path.read_bytes()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["copy"]


def test_a_failed_download_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.download("nope", tmp_path / "new" / "file")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("key", ["", "/absolute", "a/../../etc/passwd", "a\x0eb"])
def test_keys_that_leave_the_store_are_refused(folder_store: Store, key: str) -> None:
    with pytest.raises(BadInput):
        folder_store.put(key, b"x")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=40
    )
)
def test_names_that_people_give_their_files_survive(folder_store: Store, name: str) -> None:
    if name in {".", ".."} or len(name.encode()) > 200:
        return
    folder_store.put(f"raw/{name}", b"x")
    assert folder_store.get(f"raw/{name}") == b"x"
    assert f"raw/{name}" in [meta.key for meta in folder_store.objects("raw")]
    folder_store.delete(f"raw/{name}")


def test_an_unknown_scheme_is_refused_with_what_to_use() -> None:
    with pytest.raises(BadConfig, match="s3://bucket"):
        Store("ftp://host/x")


def test_an_unreachable_endpoint_is_unavailable_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with pytest.raises(Unavailable):
        Store("s3://bucket", endpoint="http://127.0.0.1:9").get("k")
