"""The index snapshot: an immutable folder that is built once, then only opened and read.

    vectors.faiss   cosine neighbors by passage number         memory-mapped
    lexical/        BM25 statistics by passage number          memory-mapped
    quant.npy       insight score by passage number, NaN = no metrics
    chunks.sqlite   text and metadata; read only for the passages that are reranked or returned
    index.json      counts, dimension, embedder, kind, measured recall

The same chunks, scores and model give the same bytes, so an index's version is its content.
"""

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from alchemy.errors import BadInput, ContractBroken
from alchemy.records import Chunk, from_line, to_line
from alchemy.retrieval.backends import VectorBackend, open_vectors
from alchemy.retrieval.dense import Dense
from alchemy.retrieval.embed import Embedding, Progress
from alchemy.retrieval.lexical import Lexical
from alchemy.retrieval.vectors import embed_chunks, fill
from alchemy.settings import VectorOptions

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

VECTORS, LEXICAL, QUANT, CHUNKS, SUMMARY = (
    "vectors.faiss",
    "lexical",
    "quant.npy",
    "chunks.sqlite",
    "index.json",
)
FORMAT = 2
FAISS = VectorOptions()

_TABLE = """
CREATE TABLE chunks (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, document_id TEXT NOT NULL,
    source TEXT NOT NULL, project TEXT NOT NULL, kind TEXT NOT NULL, day TEXT NOT NULL, record BLOB NOT NULL
)"""
_LOOKUPS = (
    "CREATE UNIQUE INDEX chunks_by_id ON chunks (id)",
    "CREATE INDEX chunks_by_document ON chunks (document_id, number)",
    # Holds every column that a filter asks for, so that none of the large records is read for one.
    "CREATE INDEX chunks_by_facet ON chunks (source, project, kind, day)",
)
# Read from `chunks_by_facet` alone, which an ORDER BY number would keep SQLite from.
_MATCHING = """
SELECT number FROM chunks
WHERE (:sources IS NULL OR source IN (SELECT value FROM json_each(:sources)))
  AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
  AND day >= :since
  AND (:until = '' OR day != '' AND day < :until)
  AND (
    :access IS NULL
    OR source || '/' || project IN (SELECT value FROM json_each(:access))
    OR source || '/*' IN (SELECT value FROM json_each(:access))
  )"""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a search is limited to; empty means all. A passage must match everything that is given.

    A day is that of the document's last change, as its source wrote it; without one a document is outside of
    every range of days. `access` is who may read what: an empty set lets nothing through.
    """

    sources: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: str = ""  # the first day, 2024-03-01
    until: str = ""  # the first day that is too late
    access: frozenset[str] | None = None  # scopes "<source>/<project>" or "<source>/*"; None: everything

    def __bool__(self) -> bool:
        return self != Filters()

    def completed(self, other: "Filters") -> "Filters":
        """These filters, and where one is not set, that of the other."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}
        return replace(other, **given)


def build_index(
    folder: Path,
    chunks: Iterable[Chunk],
    quant_scores: Mapping[str, float],
    embedder: Embedding,
    progress: Progress | None = None,
    parts: Iterable[Path] | None = None,
) -> dict[str, Any]:
    """Writes an index of the chunks, in their order, to an empty folder; returns its metrics.

    Args:
        quant_scores: insight score in [0, 1] by document id; a document that is missing is neutral.
        progress: called with (passages embedded, passages in all).
        parts: files of `write_vectors` with the vectors of all chunks, in order; None: they are made here.

    Raises:
        BadInput: there is no chunk, or two have one id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count, documents = _write_chunks(folder / CHUNKS, chunks)
    if not count:
        raise BadInput("no chunk to index: rag_chunks is empty; ingest and clean some documents first")
    with closing(_connect(folder / CHUNKS)) as database:
        quant = _quant_column(database, count, quant_scores)
        np.save(folder / QUANT, quant, allow_pickle=False)
        Lexical.build(folder / LEXICAL, (chunk.embed_text for chunk in _all_chunks(database)))
        with tempfile.TemporaryFile(dir=folder) as spool:  # a million vectors need not fit in memory
            shape = (count, embedder.dimension)
            vectors: Floats = np.memmap(spool, np.float32, "w+", shape=shape)
            if parts is None:
                embed_chunks(_all_chunks(database), vectors, embedder, progress)
            else:
                fill(vectors, parts)
            dense = Dense.build(folder / VECTORS, vectors)
            del vectors
    summary = {
        "format": FORMAT,
        "chunks": count,
        "documents": documents,
        "chunks_with_quant": int(np.isfinite(quant).sum()),
        "embedder": embedder.model_id,
        "dimension": embedder.dimension,
        **asdict(dense),
    }
    (folder / SUMMARY).write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    return summary


class Index:
    """An opened snapshot. Safe to read from threads; `close` when the last search is done."""

    def __init__(
        self, folder: Path, summary: dict[str, Any], dense: VectorBackend, lexical: Lexical, quant: Floats
    ):
        self.folder = folder
        self.summary = summary
        self.dense = dense
        self.lexical = lexical
        self.quant = quant
        self.count: int = summary["chunks"]
        self._connections: list[sqlite3.Connection] = []
        self._local = threading.local()
        self._allowed = lru_cache(maxsize=64)(self._select)

    @classmethod
    def open(cls, folder: Path, vectors: VectorOptions = FAISS) -> "Index":
        """Maps the files of a folder; `vectors` says where the vectors are searched.

        Raises:
            ContractBroken: a file is missing or damaged (it is named), or a database has other vectors.
            Unavailable: the database does not answer.
        """
        summary = _read_summary(folder / SUMMARY)
        lexical = Lexical.open(folder / LEXICAL)
        quant = _checked(folder / QUANT, lambda: np.load(folder / QUANT, allow_pickle=False))
        dense = open_vectors(folder / VECTORS, vectors)
        index = cls(folder, summary, dense, lexical, quant)
        path = folder / CHUNKS
        stored = _checked(path, lambda: index._rows("SELECT count(*), max(number) FROM chunks")[0])
        sizes = {VECTORS: dense.count, LEXICAL: lexical.count, QUANT: len(quant), CHUNKS: stored[0]}
        wrong = [name for name, size in sizes.items() if size != index.count]
        if wrong:
            raise ContractBroken(
                f"{folder}: {SUMMARY} says {index.count} chunks, but {wrong[0]} has another count"
            )
        return index

    def chunk(self, chunk_id: str) -> Chunk | None:
        """The chunk of that id."""
        rows = self._rows("SELECT record FROM chunks WHERE id = ?", [chunk_id])
        return from_line(Chunk, rows[0][0]) if rows else None

    def document_chunks(self, document_id: str) -> list[Chunk]:
        """All chunks of a document in reading order; empty for an unknown document."""
        rows = self._rows("SELECT record FROM chunks WHERE document_id = ? ORDER BY number", [document_id])
        return [from_line(Chunk, record) for (record,) in rows]

    def chunks(self, numbers: Sequence[int]) -> list[Chunk]:
        """The chunks of passage numbers, in that order."""
        marks = ",".join("?" * len(numbers))
        query = f"SELECT number, record FROM chunks WHERE number IN ({marks})"  # noqa: S608 - only marks
        found = dict(self._rows(query, [int(number) for number in numbers]))
        return [from_line(Chunk, found[int(number)]) for number in numbers]

    def allowed(self, filters: Filters) -> Ids | None:
        """Passage numbers that match the filters, ascending; None where everything does."""
        return self._allowed(filters) if filters else None

    def close(self) -> None:
        """Closes the databases; a search that still runs on this index fails."""
        self.dense.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _select(self, filters: Filters) -> Ids:
        wanted = {
            "sources": filters.sources or None,
            "projects": filters.projects or None,
            "kinds": filters.kinds or None,
            "access": filters.access,
        }
        lists = {
            name: None if some is None else orjson.dumps(sorted(some)).decode()
            for name, some in wanted.items()
        }
        numbers = self._rows(_MATCHING, {**lists, "since": filters.since, "until": filters.until})
        return np.sort(np.array([number for (number,) in numbers], np.int64))

    def _rows(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        connection = getattr(self._local, "connection", None)
        if connection is None:  # one for each thread: SQLite reads in parallel, a shared one would queue
            connection = self._local.connection = _connect(self.folder / CHUNKS)
            self._connections.append(connection)
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise ContractBroken(f"{self.folder / CHUNKS}: the chunks cannot be read: {error}") from error


def _write_chunks(path: Path, chunks: Iterable[Chunk]) -> tuple[int, int]:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        # The folder is published only when it is complete, so a journal would protect nothing.
        for statement in ("PRAGMA page_size = 4096", "PRAGMA journal_mode = OFF", _TABLE, "BEGIN"):
            database.execute(statement)
        rows = (
            (number, c.id, c.document_id, c.source, c.project, c.kind, c.updated[:10], to_line(c))
            for number, c in enumerate(chunks)
        )
        database.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        try:
            for statement in ("COMMIT", *_LOOKUPS, "VACUUM"):
                database.execute(statement)
        except sqlite3.IntegrityError:
            query = "SELECT id FROM chunks GROUP BY id HAVING count(*) > 1 LIMIT 1"
            raise BadInput(f"two chunks have the id {database.execute(query).fetchone()[0]}") from None
        counts = database.execute("SELECT count(*), count(DISTINCT document_id) FROM chunks").fetchone()
        return int(counts[0]), int(counts[1])


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        return sqlite3.connect(uri, uri=True, check_same_thread=False)
    except sqlite3.Error as error:
        raise ContractBroken(f"{path}: the chunks cannot be opened: {error}") from error


def _all_chunks(database: sqlite3.Connection) -> Iterator[Chunk]:
    for (record,) in database.execute("SELECT record FROM chunks ORDER BY number"):
        yield from_line(Chunk, record)


def _quant_column(database: sqlite3.Connection, count: int, scores: Mapping[str, float]) -> Floats:
    rows = database.execute("SELECT document_id FROM chunks ORDER BY number")
    return np.fromiter((scores.get(document, np.nan) for (document,) in rows), np.float32, count)


def _read_summary(path: Path) -> dict[str, Any]:
    summary = _checked(path, lambda: orjson.loads(path.read_bytes()))
    if not isinstance(summary, dict) or summary.get("format") != FORMAT or "chunks" not in summary:
        raise ContractBroken(f"{path}: not an index of format {FORMAT}; build the index again")
    return summary


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, ValueError, EOFError) as error:
        raise ContractBroken(f"{path}: cannot be read: {error}") from error
