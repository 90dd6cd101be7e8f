"""From raw objects to the cleaned corpus.

    clean_object   one raw object -> documents and rejected rows, stored under a digest of what decides them
    assemble       all cleaned objects -> deduplicated part files, quarantine, conservation counts

`clean_object` is the unit of work of both engines: it is pure up to its output, which is addressed by
content, so doing it twice, or on two machines at once, changes nothing. An object whose digest is already
there is never read again: the cost of a run follows the change. Both engines share `assemble`, and so
publish the same bytes.
"""

import hashlib
import hmac
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from alchemy import sources
from alchemy.errors import NotFound
from alchemy.parts import PartWriter
from alchemy.records import Document, RawObject, Rejected, fingerprint, from_line, from_row, to_line
from alchemy.settings import CleanOptions
from alchemy.store import Store
from alchemy.text.dedup import Dropped, OrderKey, content_hash, plan_dedup, settle
from alchemy.text.document import mask_rejected, to_document
from alchemy.text.near_duplicates import (
    ShingleFile,
    Sketch,
    plan_near_duplicates,
    shingle_hashes,
    sketch,
)
from alchemy.text.sanitize import Sanitizer

CLEANER_VERSION = "2"  # raise it when a reader, a masking rule or the document form changes
CONSERVATION = "conservation.json"
_OF_ASSEMBLY = {"part_bytes", "near_duplicate_jaccard"}  # options that no single object's result depends on


@dataclass(frozen=True, slots=True)
class Entry:
    """A cleaned document without its text: what deduplication needs to know."""

    id: str
    version: str
    content_hash: str
    updated: str
    size: int  # characters of the text
    bands: str  # what near duplicates are found by, see `near_duplicates.sketch`


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The result of one raw object. `entries[i]` is the i-th document line of its records file."""

    raw: RawObject
    digest: str
    entries: tuple[Entry, ...]
    rejected: int


@dataclass(frozen=True)
class CleanJob:
    """All that decides the result of cleaning besides the object; travels to worker processes."""

    store_url: str
    endpoint: str | None
    options: CleanOptions
    salt: bytes

    @cached_property
    def store(self) -> Store:
        return Store(self.store_url, endpoint=self.endpoint)

    @cached_property
    def sanitizer(self) -> Sanitizer:
        return Sanitizer(self.salt, addresses=self.options.street_addresses)

    @cached_property
    def salt_digest(self) -> str:
        """Stands for the salt where another salt must mean another result."""
        return hmac.new(self.salt, b"cleaned object", hashlib.sha256).hexdigest()[:20]

    def digest(self, raw: RawObject) -> str:
        """The address of the object's result."""
        options = self.options.model_dump(exclude=_OF_ASSEMBLY)
        return fingerprint(CLEANER_VERSION, raw.key, raw.sha256, self.salt_digest, options)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("store_url", "endpoint", "options", "salt")}


def find_cleaned(store: Store, digest: str) -> Cleaned | None:
    """The summary of an object that was cleaned before, or None."""
    try:
        return from_line(Cleaned, store.get(_summary_key(digest)))
    except NotFound:
        return None


def clean_object(job: CleanJob, raw: RawObject) -> Cleaned:
    """Reads, masks and stores one raw object. Every record becomes a document or a rejected row.

    An object that is gone or has other bytes than were listed becomes one rejected row; that result is
    stored apart from the digest's own, so the object is read again when it is listed again.
    """
    with tempfile.TemporaryDirectory(prefix="alchemy-") as name:
        folder = Path(name)
        path, found = folder / "object", raw.sha256
        try:
            job.store.download(raw.key, path)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            failure = "" if found == raw.sha256 else "changed_while_read"
        except NotFound:
            failure = "disappeared"
        digest = f"{job.digest(raw)}-{failure}" if failure else job.digest(raw)
        entries, rejected = [], 0
        records = folder / "records.jsonl"
        with records.open("wb") as out:
            rows = [_lost(raw, failure)] if failure else _clean(job, raw, path)
            for row in rows:
                if isinstance(row, Document):
                    entries.append(_entry(row))
                    out.write(to_line({"document": row}))
                else:
                    rejected += 1
                    out.write(to_line({"rejected": row}))
        cleaned = Cleaned(raw, digest, tuple(entries), rejected)
        job.store.put(_records_key(digest), records)
        job.store.put(_summary_key(digest), to_line(cleaned))  # last: it says that the records are whole
    return cleaned


@dataclass(frozen=True, slots=True)
class Corpus:
    """What `assemble` made: counts per source, and rejected rows per reason."""

    conservation: dict[str, dict[str, int]]
    reasons: dict[str, int]
    documents: int


def clean_objects(
    job: CleanJob,
    objects: Sequence[RawObject],
    run: Callable[[CleanJob, Sequence[RawObject]], Iterator[Cleaned]],
    progress: Callable[[int, int], None],
) -> tuple[list[Cleaned], int]:
    """The result of every object, and how many had to be cleaned: `run` sees only those that are new."""
    results, new = [], []
    for raw in objects:
        found = find_cleaned(job.store, job.digest(raw))
        if found is None:
            new.append(raw)
        else:
            results.append(found)
    total = sum(raw.size for raw in new)
    done = 0
    for cleaned in run(job, new) if new else ():
        results.append(cleaned)
        done += cleaned.raw.size
        progress(done, total)
    return results, len(new)


def assemble(
    store: Store, cleaned: Sequence[Cleaned], corpus: Path, quarantine: Path, options: CleanOptions
) -> Corpus:
    """Writes the deduplicated documents and all rejected rows as part files, in order of raw key.

    `records_in = kept + duplicate + filtered + quarantined` holds for every source by what was read and
    what was written, counted apart.
    """
    ordered = sorted(cleaned, key=lambda one: one.raw.key.encode())
    dropped = _plan(store, ordered, options)
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    with (
        PartWriter(corpus, options.part_bytes) as documents,
        PartWriter(quarantine, options.part_bytes) as rows,
    ):
        for one in ordered:
            count = counts.setdefault(one.raw.source, Counter())
            count["records_in"] += len(one.entries) + one.rejected
            position = 0
            for kind, row in _read_records(store, one.digest):
                if kind == "rejected":
                    rejected = from_row(Rejected, row)
                else:
                    drop = dropped.get((row["id"], (one.raw.key, position)))
                    position += 1
                    if drop is None:
                        documents.write_line(to_line(row))
                        count["kept"] += 1
                        continue
                    rejected = _duplicate(one.raw, row["locator"], drop)
                rows.write(rejected)
                count[rejected.outcome] += 1
                reasons[rejected.reason] += 1
        total = documents.count
    conservation = {
        source: {name: count[name] for name in ("records_in", "kept", "duplicate", "filtered", "quarantined")}
        for source, count in sorted(counts.items())
    }
    (corpus / CONSERVATION).write_bytes(orjson.dumps(conservation, option=orjson.OPT_INDENT_2))
    return Corpus(conservation, dict(sorted(reasons.items())), total)


def unbalanced(conservation: dict[str, dict[str, int]]) -> dict[str, int]:
    """The sources whose records do not add up, with how many are missing (negative: too many)."""
    missing = {
        source: count["records_in"]
        - sum(count[name] for name in ("kept", "duplicate", "filtered", "quarantined"))
        for source, count in conservation.items()
    }
    return {source: number for source, number in missing.items() if number}


def _entry(document: Document) -> Entry:
    return Entry(
        document.id,
        document.version,
        content_hash(document),
        document.updated,
        len(document.text),
        sketch(document),
    )


def _plan(
    store: Store, ordered: Sequence[Cleaned], options: CleanOptions
) -> dict[tuple[str, OrderKey], Dropped]:
    """Exact copies and old versions first; near duplicates among the documents that are then left."""
    dropped = plan_dedup(
        (entry.id, entry.version, entry.content_hash, entry.updated, (one.raw.key, position))
        for one in ordered
        for position, entry in enumerate(one.entries)
    )
    left = [
        Sketch(entry.id, (one.raw.key, position), entry.updated, entry.size, entry.bands)
        for one in ordered
        for position, entry in enumerate(one.entries)
        if entry.bands and (entry.id, (one.raw.key, position)) not in dropped
    ]
    with tempfile.TemporaryDirectory(prefix="alchemy-") as name:
        file = ShingleFile(Path(name) / "shingles")

        def shingles(wanted: Sequence[OrderKey]) -> Mapping[OrderKey, Any]:
            file.write(_read_shingles(store, ordered, frozenset(wanted)))
            return file.read()

        near = plan_near_duplicates(left, shingles, options.near_duplicate_jaccard)
    return settle({**dropped, **near})


def _read_shingles(
    store: Store, ordered: Sequence[Cleaned], wanted: frozenset[OrderKey]
) -> Iterator[tuple[OrderKey, Any]]:
    """Shingles of some documents, from the stored records of the objects that hold them."""
    objects = {key for key, _ in wanted}
    for one in ordered:
        if one.raw.key not in objects:
            continue
        documents = (row for kind, row in _read_records(store, one.digest) if kind == "document")
        for position, row in enumerate(documents):
            if (one.raw.key, position) in wanted:
                yield (one.raw.key, position), shingle_hashes(row["title"], row["text"])


def _clean(job: CleanJob, raw: RawObject, path: Path) -> Iterator[Document | Rejected]:
    for row in sources.read(raw, path, job.options):
        if isinstance(row, Rejected):
            yield mask_rejected(row, job.sanitizer)
        else:
            yield to_document(row, raw, job.sanitizer, job.options)


def _lost(raw: RawObject, reason: str) -> Rejected:
    detail = {
        "disappeared": "The object was removed between listing and reading.",
        "changed_while_read": "The object has other bytes than were listed; the next run reads it again.",
    }[reason]
    return Rejected(raw.source, raw.key, raw.sha256, "", "quarantined", "read", reason, detail)


def _duplicate(raw: RawObject, locator: str, drop: Dropped) -> Rejected:
    return Rejected(raw.source, raw.key, raw.sha256, locator, "duplicate", "dedup", drop.reason, drop.kept_id)


def _read_records(store: Store, digest: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stored rows of one object as ("document" | "rejected", row), in reading order."""
    tail = b""
    for piece in store.stream(_records_key(digest)):
        *lines, tail = (tail + piece).split(b"\n")
        for line in lines:
            yield next(iter(orjson.loads(line).items()))


def _records_key(digest: str) -> str:
    return f"processed/objects/{digest}/records.jsonl"


def _summary_key(digest: str) -> str:
    return f"processed/objects/{digest}/summary.json"
