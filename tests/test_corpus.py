"""Cleaning: one unit of work for both engines, incremental by content, nothing lost."""

from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest

from alchemy.corpus import (
    Cleaned,
    CleanJob,
    Corpus,
    assemble,
    clean_object,
    clean_objects,
    unbalanced,
)
from alchemy.engine import PythonEngine, pick_engine
from alchemy.listing import list_raw
from alchemy.parts import read_parts
from alchemy.records import SOURCES, Document, RawObject, Rejected
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


def job_of(store: Store) -> CleanJob:
    return CleanJob(store.url, store.endpoint, OPTIONS, b"test salt")


def listed(store: Store) -> list[RawObject]:
    return [raw for source in SOURCES for raw in list_raw(store, source)]


def wash(store: Store, folder: Path, run: Callable | None = None) -> tuple[Corpus, int]:
    job = job_of(store)
    engine = run or PythonEngine(1).clean
    cleaned, new = clean_objects(job, listed(store), engine, lambda done, total: None)
    (folder / "corpus").mkdir(parents=True)
    (folder / "quarantine").mkdir()
    return assemble(store, cleaned, folder / "corpus", folder / "quarantine", OPTIONS), new


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def documents(folder: Path) -> list[Document]:
    return list(read_parts(Document, sorted((folder / "corpus").glob("part-*"))))


def rejected(folder: Path) -> list[Rejected]:
    return list(read_parts(Rejected, sorted((folder / "quarantine").glob("part-*"))))


def test_every_record_is_kept_or_listed_with_its_reason(folder_store: Store, tmp_path: Path) -> None:
    lines = [commit(1), b"{broken\n", commit(2), commit(2, sha="f" * 40), commit(3)]
    folder_store.put("raw/git/log.jsonl", b"".join(lines))
    folder_store.put("raw/documents/empty.txt", b"")
    made, _ = wash(folder_store, tmp_path / "out")
    assert unbalanced(made.conservation) == {}
    assert made.conservation["git"]["records_in"] == 5
    assert made.conservation["git"]["kept"] == len(documents(tmp_path / "out"))
    assert made.conservation["git"]["duplicate"] == 1
    assert made.conservation["git"]["quarantined"] == 1
    assert made.conservation["documents"] == {
        "records_in": 1,
        "kept": 0,
        "duplicate": 0,
        "filtered": 0,
        "quarantined": 1,
    }
    duplicate = next(row for row in rejected(tmp_path / "out") if row.outcome == "duplicate")
    assert duplicate.detail == f"git:{2:040x}"


def test_a_record_that_is_missing_unbalances_its_source() -> None:
    counts = {"records_in": 5, "kept": 3, "duplicate": 0, "filtered": 0, "quarantined": 1}
    assert unbalanced({"git": counts, "jira": {**counts, "records_in": 4}}) == {"git": 1}


def test_only_objects_that_are_new_are_read_again(folder_store: Store, tmp_path: Path) -> None:
    for number in range(6):
        folder_store.put(f"raw/git/{number}.jsonl", commit(number))
    seen: list[str] = []

    def run(job: CleanJob, objects: Sequence[RawObject]) -> list[Cleaned]:
        seen.extend(raw.key for raw in objects)
        return [clean_object(job, raw) for raw in objects]

    wash(folder_store, tmp_path / "first", run)
    assert len(seen) == 6
    seen.clear()
    wash(folder_store, tmp_path / "again", run)
    assert seen == []
    folder_store.put("raw/git/3.jsonl", commit(3, "It waits no longer, for the lock is gone."))
    folder_store.delete("raw/git/5.jsonl")
    wash(folder_store, tmp_path / "changed", run)
    assert seen == ["raw/git/3.jsonl"]
    fresh = Store(str(tmp_path / "fresh"))
    for number in range(5):
        fresh.put(f"raw/git/{number}.jsonl", folder_store.get(f"raw/git/{number}.jsonl"))
    wash(fresh, tmp_path / "scratch")
    assert contents(tmp_path / "changed") == contents(tmp_path / "scratch")


GUIDE = (
    "The scheduler of the batch tier waits for its own lock and never answers again. Restart it with the"
    " command of the runbook, then look at the queue: every task that was late is taken up in the order of"
    " its age. If the queue does not shrink, ask the team that owns the tier before you restart anything."
)


def wash_guides(store: Store, folder: Path, order: Sequence[str], run: Callable | None = None) -> Corpus:
    for name in order:
        text = GUIDE + {"a": "", "b": " Thank you.", "c": " See version 2.1 too.", "d": ""}[name]
        store.put(f"raw/documents/{name}.md", f"# Guide to restarts\n\n{text}\n".encode())
    return wash(store, folder, run)[0]


def test_near_duplicates_are_dropped_for_the_one_that_is_published(tmp_path: Path) -> None:
    made = wash_guides(Store(str(tmp_path / "store")), tmp_path / "out", "abcd")
    assert unbalanced(made.conservation) == {}
    assert made.reasons == {"exact_duplicate": 1, "near_duplicate": 1}
    kept = {one.key for one in documents(tmp_path / "out")}
    assert {(row.reason, row.stage, row.raw_key) for row in rejected(tmp_path / "out")} == {
        ("near_duplicate", "dedup", "raw/documents/a.md"),
        ("exact_duplicate", "dedup", "raw/documents/d.md"),
    }
    longer = next(one for one in documents(tmp_path / "out") if "Thank you" in one.text)
    assert {row.detail for row in rejected(tmp_path / "out")} == {longer.id}  # also of the copy of a copy
    assert len(kept) == 2


def test_another_threshold_decides_again_without_reading_any_object_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    wash_guides(store, tmp_path / "out", "ab")
    off = CleanOptions(near_duplicate_jaccard=0)
    job = CleanJob(store.url, store.endpoint, off, b"test salt")
    cleaned, new = clean_objects(job, listed(store), PythonEngine(1).clean, lambda done, total: None)
    assert new == 0
    for name in ("all", "rejected"):
        (tmp_path / name).mkdir()
    assert assemble(store, cleaned, tmp_path / "all", tmp_path / "rejected", off).documents == 2


def test_near_duplicates_do_not_depend_on_the_order_or_on_what_was_cleaned_before(tmp_path: Path) -> None:
    def backwards(job: CleanJob, objects: Sequence[RawObject]) -> list[Cleaned]:
        return [clean_object(job, raw) for raw in reversed(objects)]

    wash_guides(Store(str(tmp_path / "one")), tmp_path / "first", "abcd")
    wash_guides(Store(str(tmp_path / "two")), tmp_path / "second", "dcba", backwards)
    grown = Store(str(tmp_path / "three"))
    wash_guides(grown, tmp_path / "third", "a")
    wash_guides(grown, tmp_path / "fourth", "bcd")
    assert contents(tmp_path / "first") == contents(tmp_path / "second") == contents(tmp_path / "fourth")


def test_part_files_end_by_size_and_hold_everything_in_order(folder_store: Store, tmp_path: Path) -> None:
    folder_store.put("raw/git/log.jsonl", b"".join(commit(number) for number in range(300)))
    cleaned = [clean_object(job_of(folder_store), raw) for raw in listed(folder_store)]
    small = CleanOptions(part_bytes=1 << 16)
    (tmp_path / "corpus").mkdir()
    assemble(folder_store, cleaned, tmp_path / "corpus", tmp_path / "q", small)
    parts = sorted((tmp_path / "corpus").glob("part-*"))
    assert len(parts) > 2
    assert [one.key for one in documents(tmp_path)] == [f"{number:040x}" for number in range(300)]


def test_an_object_that_goes_away_while_it_is_read_is_a_quarantine_row(
    folder_store: Store, tmp_path: Path
) -> None:
    folder_store.put("raw/git/a.jsonl", commit(1))
    folder_store.put("raw/git/b.jsonl", commit(2))
    objects = listed(folder_store)
    folder_store.delete("raw/git/a.jsonl")
    folder_store.put("raw/git/b.jsonl", commit(3))
    job = job_of(folder_store)
    cleaned = [clean_object(job, raw) for raw in objects]
    (tmp_path / "c").mkdir()
    made = assemble(folder_store, cleaned, tmp_path / "c", tmp_path / "q", OPTIONS)
    assert made.reasons == {"changed_while_read": 1, "disappeared": 1}
    assert unbalanced(made.conservation) == {}
    folder_store.put("raw/git/a.jsonl", commit(1))
    again = clean_object(job, objects[0])
    assert len(again.entries) == 1


def test_another_salt_is_another_result(folder_store: Store) -> None:
    folder_store.put("raw/git/a.jsonl", commit(1))
    raw = listed(folder_store)[0]
    one, other = job_of(folder_store), CleanJob(folder_store.url, None, OPTIONS, b"other salt")
    assert one.digest(raw) != other.digest(raw)
    assert b"test salt" not in folder_store.get(
        f"processed/objects/{clean_object(one, raw).digest}/summary.json"
    )


@pytest.mark.integration
def test_the_process_pool_and_spark_publish_the_same_bytes_as_one_process(
    folder_store: Store, tmp_path: Path, spark: object
) -> None:
    from alchemy.upload import upload_raw
    from spark_jobs.clean import SparkEngine

    results = {}
    runs = {"one": PythonEngine(1), "pool": PythonEngine(2), "spark": SparkEngine("local[2]", spark)}
    for name, engine in runs.items():
        store = Store(str(tmp_path / f"store-{name}"))
        upload_raw(store, ROOT / "examples" / "raw")
        made, new = wash(store, tmp_path / name, engine.clean)
        assert new == len(listed(store))
        assert unbalanced(made.conservation) == {}
        results[name] = contents(tmp_path / name)
    assert results["one"] == results["pool"] == results["spark"]
    assert len(documents(tmp_path / "one")) > 100


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
