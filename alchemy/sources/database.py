"""Database content: every row of every table is a record.

| shape | known by | read by |
|---|---|---|
| SQLite | its magic number | `sqlite_rows` |
| Parquet | its magic number | `parquet_rows` |
| `pg_dump -Fc` | `PGDMP` | `pg_archive` |
| `pg_dump -Fd` and `-Ft`, as one tar or zip file | `toc.dat` in an archive's folder | `pg_folder` |
| plain dumps of PostgreSQL, MySQL and SQLite | CREATE TABLE, INSERT or COPY | `sql_dump` |
| CSV and TSV | text with columns | `csv_rows` |
"""

from collections.abc import Iterator
from pathlib import Path

from alchemy.records import Draft, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.csv_rows import read_csv
from alchemy.sources.parquet_rows import PARQUET_MAGIC, read_parquet
from alchemy.sources.pg_archive import read_pg_archive
from alchemy.sources.pg_contents import MAGIC as PG_MAGIC
from alchemy.sources.pg_folder import single_piece
from alchemy.sources.reasons import reject
from alchemy.sources.sql_dump import looks_like_sql, read_sql
from alchemy.sources.sqlite_rows import MAGIC, read_sqlite
from alchemy.text.decode import Undecodable, decode

_SNIFFED = 1 << 18


def read(raw: RawObject, path: Path, options: CleanOptions) -> Iterator[Draft | Rejected]:
    name = raw.key.removeprefix(f"raw/{raw.source}/")
    with path.open("rb") as file:
        head = file.read(_SNIFFED)
    if head.startswith(MAGIC):
        yield from read_sqlite(raw, path, name)
        return
    if name.lower().endswith((".sqlite", ".sqlite3", ".db")):
        yield reject(raw, "broken", "The file is named as an SQLite database but is none.", sample=head)
        return
    if head.startswith(PARQUET_MAGIC):
        yield from read_parquet(raw, path, name)
        return
    if head.startswith(PG_MAGIC):
        yield from read_pg_archive(raw, path, name, options.max_document_bytes)
        return
    if piece := single_piece(name, path, head):
        yield reject(raw, piece.reason, piece.detail, sample=head)
        return
    try:
        # The last line is left out: the block may end inside a character.
        text = decode(head if len(head) < _SNIFFED else head[: head.rfind(b"\n") + 1] or head).text
    except Undecodable:
        yield reject(raw, "unsupported", "The file is no database format known here.", sample=head)
        return
    if looks_like_sql(text):
        yield from read_sql(raw, path, name, options.max_document_bytes)
    else:
        yield from read_csv(raw, path, name, text)
