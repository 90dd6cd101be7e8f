"""From raw objects to the cleaned corpus: the unit of work of both engines.

    clean_piece    one raw object, or a slice of a large one -> documents and rejected rows, stored under a
                   digest of what decides them
    clean_pieces   the results of all pieces, of which only the new ones are cleaned

`clean_piece` is pure up to its output, which is addressed by content, so doing it twice, or on two machines
at once, changes nothing. A piece whose digest is already there is never read again: the cost of a run follows
the change. What comes after, `assembly`, is the same for both engines.
"""

import hashlib
import hmac
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from alchemy import sources
from alchemy.errors import NotFound
from alchemy.records import Document, Draft, RawObject, Rejected, Slice, fingerprint, from_line, to_line
from alchemy.settings import CleanOptions
from alchemy.store import Store
from alchemy.text.dedup import content_hash
from alchemy.text.document import mask_rejected, to_document
from alchemy.text.names import NOBODY, People
from alchemy.text.near_duplicates import sketch
from alchemy.text.sanitize import Sanitizer

CLEANER_VERSION = "4"  # raise it when a reader, a masking rule or the document form changes
_SOURCES_OF_PEOPLE = frozenset({"git", "jira", "confluence"})  # whose records talk of each other's authors
_OF_ASSEMBLY = {"part_bytes", "near_duplicate_jaccard"}  # options that no single object's result depends on


@dataclass(frozen=True, slots=True)
class Piece:
    """What is cleaned at once: bytes `start` to `end` of a raw object, mostly all of them."""

    raw: RawObject  # without its slices
    start: int
    end: int
    sha256: str  # of these bytes

    @property
    def order(self) -> tuple[bytes, int]:
        """The place of the piece among all others."""
        return self.raw.key.encode(), self.start


def pieces_of(objects: Iterable[RawObject]) -> list[Piece]:
    """All pieces of the objects, in order."""
    found = [
        Piece(replace(raw, slices=()), one.start, one.end, one.sha256)
        for raw in objects
        for one in raw.slices or (Slice(0, raw.size, raw.sha256),)
    ]
    return sorted(found, key=lambda piece: piece.order)


@dataclass(frozen=True, slots=True)
class Entries:
    """The documents of a piece without their texts, in columns: what deduplication needs to know."""

    ids: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    content_hashes: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()  # characters of the text
    bands: tuple[str, ...] = ()  # what near duplicates are found by, see `near_duplicates.sketch`


@dataclass(frozen=True, slots=True)
class Cleaned:
    """The result of one piece. The i-th of `entries` is the i-th line of its documents file."""

    piece: Piece
    digest: str
    entries: Entries
    columns: tuple[str, ...]  # names of all metrics of the documents, sorted
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

    def digest(self, piece: Piece) -> str:
        """The address of the piece's result."""
        options = self.options.model_dump(exclude=_OF_ASSEMBLY)
        where = (piece.raw.key, piece.raw.sha256, piece.start, piece.end)
        return fingerprint(CLEANER_VERSION, *where, self.salt_digest, options)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("store_url", "endpoint", "options", "salt")}


Run = Callable[[CleanJob, Sequence[Piece]], Iterable[Cleaned]]


def clean_pieces(
    job: CleanJob, pieces: Sequence[Piece], run: Run, progress: Callable[[int, int], None]
) -> Iterator[tuple[Cleaned, bool]]:
    """The result of every piece, in any order, and whether it was cleaned now: `run` sees only new ones."""
    new = []
    for piece in pieces:
        found = find_cleaned(job.store, job.digest(piece))
        if found is None:
            new.append(piece)
        else:
            yield found, False
    total = sum(piece.end - piece.start for piece in new)
    done = 0
    for cleaned in run(job, new) if new else ():
        yield cleaned, True
        done += cleaned.piece.end - cleaned.piece.start
        progress(done, total)


def find_cleaned(store: Store, digest: str) -> Cleaned | None:
    """The summary of a piece that was cleaned before, or None."""
    try:
        return from_line(Cleaned, store.get(_key(digest, "summary.json")))
    except NotFound:
        return None


def clean_piece(job: CleanJob, piece: Piece) -> Cleaned:
    """Reads, masks and stores one piece. Every record becomes a document or a rejected row.

    An object that is gone or has other bytes than were listed becomes one rejected row; that result is
    stored apart from the digest's own, so the piece is read again when it is listed again.
    """
    with tempfile.TemporaryDirectory(prefix="alchemy-") as name:
        folder = Path(name)
        failure = _fetch(job.store, piece, folder / "object")
        digest = f"{job.digest(piece)}-{failure}" if failure else job.digest(piece)
        rows = [_lost(piece.raw, failure)] if failure else _clean(job, piece, folder / "object")
        entries: list[tuple[Any, ...]] = []
        columns: set[str] = set()
        rejected = 0
        with (folder / "documents").open("wb") as documents, (folder / "rejected").open("wb") as others:
            for row in rows:
                if isinstance(row, Document):
                    entries.append(_entry(row))
                    columns.update(row.metrics)
                    documents.write(to_line(row))
                else:
                    rejected += 1
                    others.write(to_line(row))
        if entries:
            job.store.put(_key(digest, "documents.jsonl"), folder / "documents")
        if rejected:
            job.store.put(_key(digest, "rejected.jsonl"), folder / "rejected")
        found = Entries(*map(tuple, zip(*entries, strict=True)))
        cleaned = Cleaned(piece, digest, found, tuple(sorted(columns)), rejected)
        job.store.put(_key(digest, "summary.json"), to_line(cleaned))  # last: it says that the rest is whole
    return cleaned


def document_lines(store: Store, digest: str, count: int) -> Iterator[bytes]:
    """The stored documents of a piece as JSON lines, in reading order; `count` of them were made."""
    return _lines(store, _key(digest, "documents.jsonl")) if count else iter(())


def rejected_lines(store: Store, digest: str, count: int) -> Iterator[bytes]:
    """The stored rejected rows of a piece as JSON lines, in reading order; `count` of them were made."""
    return _lines(store, _key(digest, "rejected.jsonl")) if count else iter(())


def _fetch(store: Store, piece: Piece, path: Path) -> str:
    """Copies the bytes of a piece into a file; a reason code where they are not the ones that were listed."""
    try:
        if piece.end - piece.start == piece.raw.size:
            store.download(piece.raw.key, path)
        else:
            meta = store.head(piece.raw.key)
            if meta is not None and meta.size < piece.end:
                return "changed_while_read"
            path.write_bytes(store.get_range(piece.raw.key, piece.start, piece.end))
    except NotFound:
        return "disappeared"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if found == piece.sha256 else "changed_while_read"


def _clean(job: CleanJob, piece: Piece, path: Path) -> Iterator[Document | Rejected]:
    people = _people(job, piece, path)
    for row in sources.read(piece.raw, path, job.options):
        # A reader counts lines from where it begins.
        found = replace(row, locator=f"{row.locator} from byte {piece.start}") if piece.start else row
        if isinstance(found, Rejected):
            yield mask_rejected(found, job.sanitizer)
        else:
            yield to_document(found, piece.raw, job.sanitizer, job.options, people)


def _people(job: CleanJob, piece: Piece, path: Path) -> People:
    """The authors of all records. The piece is read twice, since the last record may name the first one's."""
    if piece.raw.source not in _SOURCES_OF_PEOPLE:
        return NOBODY
    rows = sources.read(piece.raw, path, job.options)
    return People(name for row in rows if isinstance(row, Draft) for name in row.people)


def _entry(document: Document) -> tuple[Any, ...]:
    return (
        document.id,
        document.version,
        content_hash(document),
        document.updated,
        len(document.text),
        sketch(document),
    )


def _lost(raw: RawObject, reason: str) -> Rejected:
    detail = {
        "disappeared": "The object was removed between listing and reading.",
        "changed_while_read": "The object has other bytes than were listed; the next run reads it again.",
    }[reason]
    return Rejected(raw.source, raw.key, raw.sha256, "", "quarantined", "read", reason, detail)


def _lines(store: Store, key: str) -> Iterator[bytes]:
    tail = b""
    for piece in store.stream(key):
        *lines, tail = (tail + piece).split(b"\n")
        for line in lines:
            yield line + b"\n"


def _key(digest: str, name: str) -> str:
    return f"processed/objects/{digest}/{name}"
