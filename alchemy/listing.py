"""What lies under `raw/<source>/`: listings by content, and what a change of them asks for.

Listing never copies data. A sha256 is computed once per (key, size, etag): the digests are remembered in
the store (`state/digests/<source>.jsonl`), a cache whose loss costs one more reading of the raw objects.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alchemy.errors import NotFound
from alchemy.records import RawObject, from_line, to_line, write_lines
from alchemy.store import ObjectMeta, Store

RAW = "raw"


@dataclass(frozen=True, slots=True)
class Digest:
    """A sha256 that was computed for an object as it was at (key, size, etag)."""

    key: str
    size: int
    etag: str
    sha256: str


def list_raw(store: Store, source: str) -> list[RawObject]:
    """Every object of a source with its content hash, sorted by key. Hidden files are not data."""
    cache_key = f"state/digests/{source}.jsonl"
    known = {(row.key, row.size, row.etag): row.sha256 for row in _read_digests(store, cache_key)}
    rows = []
    for meta in store.objects(f"{RAW}/{source}"):
        if any(part.startswith(".") for part in meta.key.split("/")):
            continue
        digest = _digest(store, meta, known)
        if digest is not None:
            rows.append(digest)
    if {(row.key, row.size, row.etag) for row in rows} != known.keys():
        store.put(cache_key, b"".join(to_line(row) for row in rows))
    return [RawObject(source, row.key, row.size, row.sha256) for row in rows]


def write_listing(folder: Path, objects: list[RawObject]) -> int:
    """The listing as the file of a `raw/<source>` artifact; returns the number of objects."""
    return write_lines(folder / "objects.jsonl", objects)


def _digest(store: Store, meta: ObjectMeta, known: dict[tuple[str, int, str], str]) -> Digest | None:
    sha256 = known.get((meta.key, meta.size, meta.etag))
    if sha256 is None:
        try:
            sha256 = store.sha256(meta.key)
        except NotFound:  # removed between listing and reading: it is not there, so it is not listed
            return None
    return Digest(meta.key, meta.size, meta.etag, sha256)


def _read_digests(store: Store, key: str) -> Iterator[Digest]:
    try:
        data = store.get(key)
    except NotFound:
        return
    for line in data.splitlines():
        yield from_line(Digest, line)
