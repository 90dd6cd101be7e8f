"""Cleaning: one unit of work for both engines, incremental by content, nothing lost."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alchemy.artifacts import Artifact, Artifacts, Request
from alchemy.assembly import Corpus, group, unbalanced, wash
from alchemy.corpus import Cleaned, CleanJob, Piece, Run, clean_piece, pieces_of
from alchemy.engine import PythonEngine, pick_engine
from alchemy.errors import ContractBroken
from alchemy.listing import SLICE_BYTES, list_raw
from alchemy.parts import read_parts
from alchemy.records import SOURCES, Document, RawObject, Rejected, Slice
from alchemy.settings import CleanOptions
from alchemy.store import Store
from tests.conftest import ROOT

OPTIONS = CleanOptions()


def commit(number: int, body: str = "", sha: str | None = None) -> bytes:
    row = {
        "sha": sha or f"{number:040x}",
        "author": "Ada Example",
        "email": "ada@example.org",
        "date": f"2026-01-{number % 28 + 1:02d}T10:00:00+00:00",
        "subject": f"HAUL-{number} Rewrite the scheduler of part {number}",
        "body": body or f"The scheduler of part {number} waits for its own lock.",
        "files": [f"src/part{number}.py"],
        "n_files": 1,
    }
    return orjson.dumps(row) + b"\n"


@dataclass(frozen=True)
class Washed:
    """What a wash published."""

    artifacts: Artifacts
    made: Corpus
    new: int  # pieces that were cleaned
    corpus: Artifact

    def documents(self) -> list[Document]:
        return list(read_parts(Document, self.artifacts.parts(self.corpus, "part-")))

    def rejected(self) -> list[Rejected]:
        quarantine = self.artifacts.latest("quarantine")
        return list(read_parts(Rejected, self.artifacts.parts(quarantine, "part-")))

    def versions(self) -> tuple[str, str]:
        """Of the corpus and the quarantine: equal versions are equal bytes in equal files."""
        return self.corpus.version, self.artifacts.latest("quarantine").version


def job_of(store: Store, options: CleanOptions = OPTIONS, salt: bytes = b"test salt") -> CleanJob:
    return CleanJob(store.url, store.endpoint, options, salt)


def listed(store: Store, slice_bytes: int = SLICE_BYTES) -> list[RawObject]:
    return [raw for source in SOURCES for raw in list_raw(store, source, slice_bytes)]


def washed(
    store: Store,
    run: Run = PythonEngine(1).clean,
    *,
    options: CleanOptions = OPTIONS,
    objects: Sequence[RawObject] | None = None,
    salt: bytes = b"test salt",
    cache: Path | None = None,
) -> Washed:
    """Washes what lies in the store as the asset does. A store that is no folder needs a cache."""
    artifacts = Artifacts(store, cache or Path(store.url) / "cache")
    found = listed(store) if objects is None else objects
    request = Request("cleaned_corpus", {"listing": repr(found)}, "1", options.model_dump())
    with artifacts.draft(request) as draft:
        made, new = wash(artifacts, job_of(store, options, salt), found, run, draft)
        return Washed(artifacts, made, new, artifacts.publish(draft, {}))


def test_every_record_is_kept_or_listed_with_its_reason(folder_store: Store) -> None:
    lines = [commit(1), b"{broken\n", commit(2), commit(2, sha="f" * 40), commit(3)]
    folder_store.put("raw/git/log.jsonl", b"".join(lines))
    folder_store.put("raw/documents/empty.txt", b"")
    found = washed(folder_store)
    counts = found.made.conservation
    assert unbalanced(counts) == {}
    assert counts["git"]["records_in"] == 5
    assert counts["git"]["kept"] == len(found.documents())
    assert counts["git"]["duplicate"] == 1
    assert counts["git"]["quarantined"] == 1
    assert counts["documents"] == {
        "records_in": 1,
        "kept": 0,
        "duplicate": 0,
        "filtered": 0,
        "quarantined": 1,
    }
    duplicate = next(row for row in found.rejected() if row.outcome == "duplicate")
    assert duplicate.detail == f"git:{2:040x}"


def test_the_author_of_one_record_is_masked_in_all_records_of_the_export(folder_store: Store) -> None:
    authors = {"Ada Example": "Noor Berg"}
    first = commit(1, "Noor Berg and noor found it. Bergen is a town, and Noor  Berg is no Noor Bergsson.")
    second = commit(2).replace(b"Ada Example", authors["Ada Example"].encode())
    folder_store.put("raw/git/log.jsonl", first + second)
    folder_store.put("raw/git/other.jsonl", commit(3, "Noor Berg is an author in another export only."))
    texts = {one.key: one.text for one in washed(folder_store).documents()}
    mentions = texts[f"{1:040x}"]
    assert mentions.count("<PERSON_") == 2
    assert "Noor Berg " not in mentions and "Noor  Berg" not in mentions
    assert "noor found it. Bergen is a town" in mentions and "no Noor Bergsson" in mentions
    assert "Noor Berg is an author" in texts[f"{3:040x}"]


def test_a_record_that_is_missing_unbalances_its_source() -> None:
    counts = {"records_in": 5, "kept": 3, "duplicate": 0, "filtered": 0, "quarantined": 1}
    assert unbalanced({"git": counts, "jira": {**counts, "records_in": 4}}) == {"git": 1}


def test_a_stored_record_that_went_missing_is_named_by_its_object(folder_store: Store) -> None:
    folder_store.put("raw/git/a.jsonl", commit(1) + commit(2))
    (piece,) = pieces_of(listed(folder_store))
    cleaned = clean_piece(job_of(folder_store), piece)
    key = f"processed/objects/{cleaned.digest}/documents.jsonl"
    folder_store.put(key, folder_store.get(key).splitlines(keepends=True)[0])
    with pytest.raises(ContractBroken, match=r"raw/git/a.jsonl: 2 records were read and 1 are stored"):
        washed(folder_store)


def test_only_objects_that_are_new_are_read_again(folder_store: Store, tmp_path: Path) -> None:
    for number in range(6):
        folder_store.put(f"raw/git/{number}.jsonl", commit(number))
    seen: list[str] = []

    def run(job: CleanJob, pieces: Sequence[Piece]) -> Iterable[Cleaned]:
        seen.extend(piece.raw.key for piece in pieces)
        return [clean_piece(job, piece) for piece in pieces]

    assert washed(folder_store, run).new == 6
    assert len(seen) == 6
    seen.clear()
    washed(folder_store, run)
    assert seen == []
    folder_store.put("raw/git/3.jsonl", commit(3, "It waits no longer, for the lock is gone."))
    folder_store.delete("raw/git/5.jsonl")
    changed = washed(folder_store, run)
    assert seen == ["raw/git/3.jsonl"]
    fresh = Store(str(tmp_path / "fresh"))
    for number in range(5):
        fresh.put(f"raw/git/{number}.jsonl", folder_store.get(f"raw/git/{number}.jsonl"))
    assert changed.versions() == washed(fresh).versions()


GUIDE = (
    "The scheduler of the batch tier waits for its own lock and never answers again. Restart it with the"
    " command of the runbook, then look at the queue: every task that was late is taken up in the order of"
    " its age. If the queue does not shrink, ask the team that owns the tier before you restart anything."
)


def guides(store: Store, names: Sequence[str], run: Run = PythonEngine(1).clean) -> Washed:
    for name in names:
        text = GUIDE + {"a": "", "b": " Thank you.", "c": " See version 2.1 too.", "d": ""}[name]
        store.put(f"raw/documents/{name}.md", f"# Guide to restarts\n\n{text}\n".encode())
    return washed(store, run)


def test_near_duplicates_are_dropped_for_the_one_that_is_published(folder_store: Store) -> None:
    found = guides(folder_store, "abcd")
    assert unbalanced(found.made.conservation) == {}
    assert found.made.reasons == {"exact_duplicate": 1, "near_duplicate": 1}
    assert {(row.reason, row.stage, row.raw_key) for row in found.rejected()} == {
        ("near_duplicate", "dedup", "raw/documents/a.md"),
        ("exact_duplicate", "dedup", "raw/documents/d.md"),
    }
    longer = next(one for one in found.documents() if "Thank you" in one.text)
    assert {row.detail for row in found.rejected()} == {longer.id}  # also of the copy of a copy
    assert len({one.key for one in found.documents()}) == 2


def test_another_threshold_decides_again_without_reading_any_object_again(folder_store: Store) -> None:
    assert guides(folder_store, "ab").made.documents == 1
    off = washed(folder_store, options=CleanOptions(near_duplicate_jaccard=0))
    assert (off.new, off.made.documents) == (0, 2)


def test_near_duplicates_do_not_depend_on_the_order_or_on_what_was_cleaned_before(tmp_path: Path) -> None:
    def backwards(job: CleanJob, pieces: Sequence[Piece]) -> Iterable[Cleaned]:
        return [clean_piece(job, piece) for piece in reversed(pieces)]

    first = guides(Store(str(tmp_path / "one")), "abcd")
    second = guides(Store(str(tmp_path / "two")), "dcba", backwards)
    grown = Store(str(tmp_path / "three"))
    guides(grown, "a")
    assert first.versions() == second.versions() == guides(grown, "bcd").versions()


# ------------------------------------------------------------------------------------------------- parts


def whole(key: str, size: int) -> Piece:
    return Piece(RawObject("git", key, size, "0"), 0, size, "0")


def test_a_part_ends_where_its_pieces_say_and_a_change_moves_no_other_boundary() -> None:
    pieces = [whole(f"raw/git/{number:04d}", 1000 + number % 7) for number in range(2000)]
    groups = group(pieces, 1 << 16)
    assert [number for members in groups for number in members] == list(range(2000))
    assert 15 < len(groups) < 60
    without = [piece for number, piece in enumerate(pieces) if number != 777]
    keys = [[pieces[number].raw.key for number in members] for members in groups]
    keys_without = [[without[number].raw.key for number in members] for members in group(without, 1 << 16)]
    assert len([members for members in keys_without if members not in keys]) <= 1
    assert group([], 1) == [[]]


def test_a_large_corpus_has_about_a_thousand_parts_and_not_more() -> None:
    pieces = [whole(f"raw/git/{number:05d}", 1 << 20) for number in range(20_000)]
    assert 500 < len(group(pieces, 1)) < 1100


EDITS = st.lists(
    st.tuples(
        st.integers(0, 5),  # which object
        st.one_of(st.none(), st.lists(st.integers(0, 11), max_size=5)),  # gone, or these commits
    ),
    min_size=1,
    max_size=5,
)
# Small parts, so that a corpus of a few commits has many.
TINY_PARTS = CleanOptions(part_bytes=300, near_duplicate_jaccard=0.5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EDITS, min_size=2, max_size=4))
def test_any_sequence_of_edits_ends_in_the_bytes_of_a_run_from_scratch(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[int, list[int] | None]]]
) -> None:
    store = Store(str(tmp_path_factory.mktemp("edited")))
    last = None
    for edits in rounds:
        for number, commits in edits:
            key = f"raw/git/{number}.jsonl"
            if commits is None:
                store.delete(key)
            else:  # the body depends on the object too, so that one commit has several versions
                store.put(key, b"".join(commit(one, f"{GUIDE} {one} {number % 2}") for one in commits))
        last = washed(store, options=TINY_PARTS)
    fresh = Store(str(tmp_path_factory.mktemp("fresh")))
    for meta in store.objects("raw"):
        fresh.put(meta.key, store.get(meta.key))
    assert last is not None
    scratch = washed(fresh, options=TINY_PARTS)
    assert last.versions() == scratch.versions()
    assert scratch.made.parts_written == scratch.made.parts
    assert unbalanced(scratch.made.conservation) == {}
    again = washed(store, options=TINY_PARTS)
    assert again.made.parts_written == 0
    assert again.made.conservation == scratch.made.conservation
    assert again.versions() == scratch.versions()


def test_a_changed_object_writes_one_part_and_keeps_the_others(store: Store, tmp_path: Path) -> None:
    def put(number: int, body: str = "") -> None:
        store.put(f"raw/git/{number:03d}.jsonl", commit(number, body))

    for number in range(60):
        put(number)
    objects = listed(store)
    artifacts = Artifacts(store, tmp_path / "cache")

    def run(version: str) -> Corpus:
        request = Request("cleaned_corpus", {"listing": version}, "1")
        with artifacts.draft(request) as draft:
            made, _ = wash(artifacts, job_of(store, TINY_PARTS), listed(store), PythonEngine(1).clean, draft)
            artifacts.publish(draft, {})
        return made

    first = run("one")
    assert first.parts > 20
    put(30, "It waits no longer, for the lock is gone.")
    second = run("two")
    assert (second.parts, second.parts_written) == (first.parts, 1)
    artifacts.verify(artifacts.latest("cleaned_corpus"))
    kept = list(read_parts(Document, artifacts.parts(artifacts.latest("cleaned_corpus"), "part-")))
    assert [one.raw_key for one in kept] == [raw.key for raw in objects]
    assert [one.key for one in kept if "lock is gone" in one.text] == [f"{30:040x}"]


# ------------------------------------------------------------------------------------------------ slices


def test_a_large_file_of_lines_is_cut_at_line_ends_and_nothing_else_is(folder_store: Store) -> None:
    lines = b"".join(commit(number) for number in range(50))
    folder_store.put("raw/git/log.jsonl", lines)
    folder_store.put("raw/git/page.json", b"[" + b",".join(lines.splitlines()) + b"]")
    folder_store.put("raw/documents/log.txt", lines)
    log, page, text = (
        next(raw for raw in listed(folder_store, 3000) if raw.key == key)
        for key in ("raw/git/log.jsonl", "raw/git/page.json", "raw/documents/log.txt")
    )
    assert (page.slices, text.slices) == ((), ())
    assert len(log.slices) > 4
    assert [one.start for one in log.slices] == [0, *(one.end for one in log.slices[:-1])]
    assert log.slices[-1].end == log.size
    for one in log.slices:
        assert lines[one.start : one.end].endswith(b"\n")
        assert one.end - one.start < 3000 + len(commit(1)) + 10
    assert listed(folder_store) == listed(folder_store, 3000)  # remembered, as the digest is


def test_slices_give_the_documents_of_the_whole_and_say_where_they_stood(tmp_path: Path) -> None:
    lines = [commit(number % 40, sha=f"{number:040x}") for number in range(60)]
    lines[37] = b'{"broken": \n'
    found = []
    for name, slice_bytes in (("whole", SLICE_BYTES), ("sliced", 2000)):
        store = Store(str(tmp_path / name))
        store.put("raw/git/log.jsonl", b"".join(lines))
        found.append(washed(store, objects=listed(store, slice_bytes)))
    one, many = found
    assert many.new > 5
    assert one.made.conservation == many.made.conservation
    assert [d.text for d in one.documents()] == [d.text for d in many.documents()]
    (broken,) = [row for row in many.rejected() if row.reason == "not_json"]
    line, _, start = broken.locator.partition(" from byte ")
    data = b"".join(lines)[int(start) :].splitlines()
    assert data[int(line.removeprefix("line ")) - 1] == b'{"broken": '
    first = many.documents()[0]
    assert first.locator == "line 1"


def test_a_slice_whose_bytes_changed_is_a_quarantine_row_and_is_read_again(folder_store: Store) -> None:
    folder_store.put("raw/git/log.jsonl", b"".join(commit(number) for number in range(20)))
    objects = listed(folder_store, 2000)
    folder_store.put("raw/git/log.jsonl", b"".join(commit(number) for number in range(18)) + b" " * 100)
    found = washed(folder_store, objects=objects)
    assert found.made.reasons == {"changed_while_read": 1}
    folder_store.put("raw/git/log.jsonl", b"".join(commit(number) for number in range(20)))
    assert washed(folder_store, objects=objects).made.documents == 20


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")), max_size=30),
    st.integers(8, 64),
    st.integers(1, 20),
)
def test_slices_do_not_depend_on_how_the_store_streams(
    tail: list[bytes], slice_bytes: int, piece_bytes: int
) -> None:
    from hashlib import sha256

    from alchemy.listing import _slices

    data = b'{"a":1}\n{"a":2}\n' + b"\n".join(tail)
    at_once = list(_slices(iter([data]), sha256(), slice_bytes))
    head = 16  # the first piece of a stream holds two lines; the others may be of any size
    pieces = [data[:head], *(data[n : n + piece_bytes] for n in range(head, len(data), piece_bytes))]
    assert list(_slices(iter(pieces), sha256(), slice_bytes)) == at_once
    assert b"".join(data[one.start : one.end] for one in at_once) == data
    assert all(sha256(data[one.start : one.end]).hexdigest() == one.sha256 for one in at_once)
    assert Slice(0, 0, "") not in at_once


# ----------------------------------------------------------------------------------------------- objects


def test_an_object_that_goes_away_while_it_is_read_is_a_quarantine_row(folder_store: Store) -> None:
    folder_store.put("raw/git/a.jsonl", commit(1))
    folder_store.put("raw/git/b.jsonl", commit(2))
    objects = listed(folder_store)
    folder_store.delete("raw/git/a.jsonl")
    folder_store.put("raw/git/b.jsonl", commit(3))
    found = washed(folder_store, objects=objects)
    assert found.made.reasons == {"changed_while_read": 1, "disappeared": 1}
    assert unbalanced(found.made.conservation) == {}
    folder_store.put("raw/git/a.jsonl", commit(1))
    again = clean_piece(job_of(folder_store), pieces_of(objects)[0])
    assert len(again.entries.ids) == 1


def test_another_salt_is_another_result(folder_store: Store) -> None:
    folder_store.put("raw/git/a.jsonl", commit(1))
    (piece,) = pieces_of(listed(folder_store))
    one, other = job_of(folder_store), CleanJob(folder_store.url, None, OPTIONS, b"other salt")
    assert one.digest(piece) != other.digest(piece)
    assert b"test salt" not in folder_store.get(
        f"processed/objects/{clean_piece(one, piece).digest}/summary.json"
    )


@pytest.mark.integration
def test_the_process_pool_and_spark_publish_the_same_bytes_as_one_process(
    tmp_path: Path, spark: object
) -> None:
    from alchemy.upload import upload_raw
    from spark_jobs.clean import SparkEngine

    results = {}
    runs = {"one": PythonEngine(1), "pool": PythonEngine(2), "spark": SparkEngine("local[2]", spark)}
    for name, engine in runs.items():
        store = Store(str(tmp_path / f"store-{name}"))
        upload_raw(store, ROOT / "examples" / "raw")
        found = washed(store, engine.clean, objects=listed(store, 1 << 14))
        assert found.new > len(listed(store))
        assert unbalanced(found.made.conservation) == {}
        results[name] = found
    assert results["one"].versions() == results["pool"].versions() == results["spark"].versions()
    assert len(results["one"].documents()) > 100


def test_a_caller_that_is_slow_holds_the_workers_back(folder_store: Store) -> None:
    for number in range(60):
        folder_store.put(f"raw/git/{number}.jsonl", commit(number, "x" * 50_000))
    pieces = pieces_of(listed(folder_store))
    results = PythonEngine(2).clean(job_of(folder_store), pieces)
    next(iter(results))
    time.sleep(2)
    assert len(folder_store.folders("processed/objects")) < 40
    assert len(list(results)) == 59


@pytest.mark.parametrize(
    ("system", "java", "master", "raw_bytes", "expected"),
    [
        ("Windows", True, "local[*]", 10**12, "python"),
        ("Darwin", True, "spark://host:7077", 10**12, "python"),
        ("Linux", False, "local[*]", 10**12, "python"),
        ("Linux", True, "local[*]", 100, "python"),
        ("Linux", True, "local[*]", 10**9, "spark"),
        ("Linux", True, "spark://host:7077", 100, "spark"),
    ],
)
def test_auto_follows_the_contracts_rule(
    system: str, java: bool, master: str, raw_bytes: int, expected: str
) -> None:
    picked = pick_engine(
        "auto",
        raw_bytes=raw_bytes,
        spark_min_bytes=10**8,
        spark_master=master,
        system=system,
        has_java=java,
    )
    assert picked == expected


@pytest.mark.parametrize("mode", ["python", "spark"])
def test_a_named_engine_is_taken_as_it_is(mode: str) -> None:
    assert pick_engine(mode, raw_bytes=0, spark_min_bytes=0, spark_master="local[*]", has_java=False) == mode
