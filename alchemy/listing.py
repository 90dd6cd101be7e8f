"""What lies under `raw/<source>/`: listings by content, and what a change of them asks for.

Listing never copies data. A sha256 is computed once per (key, size, etag): the digests are remembered in
the store (`state/listing/<source>.jsonl`), a cache whose loss costs one more reading of the raw objects.

A large file of JSON lines is cut into slices while it is hashed, so that many workers can read it at once
and none holds more than a slice.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from alchemy.errors import NotFound
from alchemy.records import RawObject, Slice, from_line, to_line, write_lines
from alchemy.store import ObjectMeta, Store

RAW = "raw"
SLICE_BYTES = 32 << 20
_HEAD_BYTES = 1 << 20
_LINES_SOURCES = frozenset({"git", "jira", "confluence", "feedback"})  # whose readers take lines one by one


@dataclass(frozen=True, slots=True)
class Digest:
    """What was computed for an object as it was at (key, size, etag)."""

    key: str
    size: int
    etag: str
    sha256: str
    slices: tuple[Slice, ...]


def list_raw(store: Store, source: str, slice_bytes: int = SLICE_BYTES) -> list[RawObject]:
    """Every object of a source with its content hash, sorted by key. Hidden files are not data."""
    cache_key = f"state/listing/{source}.jsonl"
    known = {(row.key, row.size, row.etag): row for row in _read_digests(store, cache_key)}
    rows = []
    for meta in store.objects(f"{RAW}/{source}"):
        if any(part.startswith(".") for part in meta.key.split("/")):
            continue
        digest = known.get((meta.key, meta.size, meta.etag)) or _digest(store, source, meta, slice_bytes)
        if digest is not None:
            rows.append(digest)
    if {(row.key, row.size, row.etag) for row in rows} != known.keys():
        store.put(cache_key, b"".join(to_line(row) for row in rows))
    return [RawObject(source, row.key, row.size, row.sha256, row.slices) for row in rows]


def write_listing(folder: Path, objects: list[RawObject]) -> int:
    """The listing as the file of a `raw/<source>` artifact; returns the number of objects."""
    return write_lines(folder / "objects.jsonl", objects)


def _digest(store: Store, source: str, meta: ObjectMeta, slice_bytes: int) -> Digest | None:
    try:
        if source not in _LINES_SOURCES or meta.size <= slice_bytes:
            return Digest(meta.key, meta.size, meta.etag, store.sha256(meta.key), ())
        whole = hashlib.sha256()
        slices = tuple(_slices(store.stream(meta.key), whole, slice_bytes))
    except NotFound:  # removed between listing and reading: it is not there, so it is not listed
        return None
    return Digest(meta.key, meta.size, meta.etag, whole.hexdigest(), slices if len(slices) > 1 else ())


def _slices(pieces: Iterator[bytes], whole: Any, slice_bytes: int) -> Iterator[Slice]:
    """Cuts a stream after the first line end behind every `slice_bytes`; one slice where it is no lines."""
    start = end = 0
    current, cut = hashlib.sha256(), True
    for number, piece in enumerate(pieces):
        whole.update(piece)
        cut = cut and (number > 0 or _begins_with_lines(piece))
        rest = piece
        while cut and end + len(rest) - start >= slice_bytes:
            line_end = rest.find(b"\n", max(0, start + slice_bytes - end - 1))
            if line_end < 0:
                break
            current.update(rest[: line_end + 1])
            end += line_end + 1
            yield Slice(start, end, current.hexdigest())
            start, current, rest = end, hashlib.sha256(), rest[line_end + 1 :]
        current.update(rest)
        end += len(rest)
    if end > start:
        yield Slice(start, end, current.hexdigest())


def _begins_with_lines(head: bytes) -> bool:
    """Whether the first two lines that are not blank are JSON objects, each whole."""
    lines = [line for line in head[:_HEAD_BYTES].split(b"\n")[:-1] if line.strip()][:2]
    try:
        return len(lines) == 2 and all(isinstance(orjson.loads(line), dict) for line in lines)
    except orjson.JSONDecodeError:
        return False


def _read_digests(store: Store, key: str) -> Iterator[Digest]:
    try:
        data = store.get(key)
    except NotFound:
        return
    for line in data.splitlines():
        yield from_line(Digest, line)
