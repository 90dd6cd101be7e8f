"""What is known of all cleaned documents without their texts, and which of them are not published.

There may be millions of documents, so memory holds only numbers of each: hashes, and the sketch that near
duplicates are found by. Rows that share a hash with another one are looked up again where they were stored;
two that share it by chance are told apart there.
"""

import base64
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from alchemy.corpus import Cleaned, Piece, document_lines, find_cleaned
from alchemy.errors import ContractBroken
from alchemy.settings import CleanOptions
from alchemy.store import Store
from alchemy.text.dedup import Dropped, OrderKey, plan_dedup, settle
from alchemy.text.near_duplicates import (
    ShingleFile,
    Sketch,
    plan_near_duplicates,
    sharing_a_band,
    shingle_hashes,
)

_ROWS_AT_ONCE = 1 << 16
_ENTRY = {
    "piece": pl.UInt32,
    "index": pl.UInt32,  # of the document in its piece
    "id": pl.UInt64,  # hash
    "content": pl.UInt64,  # hash
    "bands": pl.Binary,  # empty for a short text
}


@dataclass(frozen=True, slots=True)
class Counted:
    """A cleaned piece without its entries."""

    piece: Piece
    digest: str
    documents: int
    columns: tuple[str, ...]
    rejected: int


@dataclass(frozen=True)
class Ledger:
    """All cleaned pieces in order, and one row of `_ENTRY` for each of their documents."""

    pieces: tuple[Counted, ...]
    entries: pl.DataFrame


def enter(cleaned: Iterable[Cleaned]) -> Ledger:
    """The ledger of cleaned pieces that come in any order. Memory: 40 bytes a document, 140 with a sketch."""
    counted: list[Counted] = []
    frames: list[pl.DataFrame] = []
    waiting: list[pl.DataFrame] = []
    rows = 0
    for one in cleaned:
        entries = one.entries
        count = len(entries.ids)
        columns = (
            [len(counted)] * count,
            range(count),
            [_hash(text) for text in entries.ids],
            [int(text[:16], 16) for text in entries.content_hashes],
            [base64.b64decode(text) for text in entries.bands],
        )
        waiting.append(pl.DataFrame(dict(zip(_ENTRY, columns, strict=True)), schema=_ENTRY))
        counted.append(Counted(one.piece, one.digest, count, one.columns, one.rejected))
        rows += count
        if rows >= _ROWS_AT_ONCE:
            frames.append(pl.concat(waiting, rechunk=True))
            waiting, rows = [], 0
    order = sorted(range(len(counted)), key=lambda number: counted[number].piece.order)
    places = pl.Series(_inverse(order), dtype=pl.UInt32)
    entries_frame = pl.concat([pl.DataFrame(schema=_ENTRY), *frames, *waiting])
    return Ledger(
        tuple(counted[number] for number in order),
        entries_frame.with_columns(piece=places.gather(entries_frame["piece"])),
    )


def plan_drops(store: Store, ledger: Ledger, options: CleanOptions) -> dict[int, dict[int, Dropped]]:
    """Which documents to drop, by piece and index.

    Exact copies and old versions first; near duplicates among the documents that are then left.
    """
    entries = ledger.entries
    alike = entries.filter(pl.col("id").is_duplicated() | pl.col("content").is_duplicated())
    dropped = plan_dedup(
        (row.id, row.version, row.content_hash, row.updated, row.order_key)
        for row in _look_up(store, ledger, alike)
    )
    if options.near_duplicate_jaccard:
        wide = entries.filter(pl.col("bands") != b"")
        meeting = wide.filter(sharing_a_band(wide["bands"]))
        left = [
            Sketch(row.id, row.order_key, row.updated, row.size, row.bands)
            for row in _look_up(store, ledger, meeting)
            if (row.id, row.order_key) not in dropped
        ]
        dropped = settle({**dropped, **_plan_near(store, ledger, left, options.near_duplicate_jaccard)})
    return _by_piece(ledger, dropped)


@dataclass(frozen=True, slots=True)
class _Row:
    """One document as its piece's summary has it."""

    order_key: OrderKey
    id: str
    version: str
    content_hash: str
    updated: str
    size: int
    bands: str


def _look_up(store: Store, ledger: Ledger, rows: pl.DataFrame) -> Iterator[_Row]:
    """What the summaries of the pieces say of some rows, in order."""
    for (number,), members in rows.sort("piece", "index").group_by("piece", maintain_order=True):
        one = ledger.pieces[int(str(number))]
        cleaned = find_cleaned(store, one.digest)
        if cleaned is None:
            raise ContractBroken(f"{one.piece.raw.key}: its result {one.digest} is gone from the store")
        entries = cleaned.entries
        columns: tuple[Sequence[Any], ...] = (
            entries.ids,
            entries.versions,
            entries.content_hashes,
            entries.updated,
            entries.sizes,
            entries.bands,
        )
        for index in members["index"]:
            yield _Row(_order_key(one.piece, index), *(column[index] for column in columns))


def _order_key(piece: Piece, index: int) -> OrderKey:
    """The place of a document. A record takes at least one byte, so indexes of two slices never meet."""
    return piece.raw.key, piece.start + index


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _by_piece(
    ledger: Ledger, dropped: Mapping[tuple[str, OrderKey], Dropped]
) -> dict[int, dict[int, Dropped]]:
    keys = {key for _, key in dropped}
    named = {key for key, _ in keys}
    places = {
        _order_key(one.piece, index): (number, index)
        for number, one in enumerate(ledger.pieces)
        if one.piece.raw.key in named
        for index in range(one.documents)
        if _order_key(one.piece, index) in keys
    }
    found: dict[int, dict[int, Dropped]] = {}
    for (_, key), drop in dropped.items():
        number, index = places[key]
        found.setdefault(number, {})[index] = drop
    return found


def _plan_near(
    store: Store, ledger: Ledger, left: Sequence[Sketch], threshold: float
) -> dict[tuple[str, OrderKey], Dropped]:
    with tempfile.TemporaryDirectory(prefix="alchemy-") as name:
        file = ShingleFile(Path(name) / "shingles")

        def shingles(wanted: Sequence[OrderKey]) -> Mapping[OrderKey, Any]:
            file.write(_read_shingles(store, ledger, frozenset(wanted)))
            return file.read()

        return plan_near_duplicates(left, shingles, threshold)


def _read_shingles(
    store: Store, ledger: Ledger, wanted: frozenset[OrderKey]
) -> Iterator[tuple[OrderKey, Any]]:
    """Shingles of some documents, from the stored documents of the pieces that hold them."""
    objects = {key for key, _ in wanted}
    for one in ledger.pieces:
        if one.piece.raw.key not in objects:
            continue
        for index, line in enumerate(document_lines(store, one.digest, one.documents)):
            key = _order_key(one.piece, index)
            if key in wanted:
                row = orjson.loads(line)
                yield key, shingle_hashes(row["title"], row["text"])


def _inverse(order: Sequence[int]) -> list[int]:
    places = [0] * len(order)
    for place, number in enumerate(order):
        places[number] = place
    return places
