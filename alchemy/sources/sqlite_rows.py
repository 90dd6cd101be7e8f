"""SQLite files, opened read-only and immutable; ordinary tables only, no views and no virtual tables."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.reasons import reject, rejected_by
from alchemy.sources.rows import Names, Table, describe, row_draft

MAGIC = b"SQLite format 3\0"
_MAX_PADDED = 64 << 30  # the padding is a hole in the file and takes no space
_SECONDS = 600  # for one file; a hostile schema can make a plain SELECT slow
_TABLES = """
    SELECT name FROM sqlite_master
    WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%'
    ORDER BY rowid
"""


def read_sqlite(raw: RawObject, path: Path, name: str) -> Iterator[Draft | Rejected]:
    """Rows of all tables; a damaged file gives the rows before the damage and one row that says so."""
    page, whole = _declared(path)
    size = path.stat().st_size
    if size >= whole:
        yield from _read(raw, path, name, "broken")
        return
    # SQLite opens no file that is shorter than its header says; padded with zeros it reads what is left.
    # The page that was cut goes too, else its half rows would look like rows.
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as padded:
        with path.open("rb") as file:
            shutil.copyfileobj(file, padded)
        padded.flush()
        padded.truncate(size - size % page)
        padded.truncate(min(whole, _MAX_PADDED))
        damaged = False
        for row in _read(raw, Path(padded.name), name, "truncated"):
            damaged = damaged or (isinstance(row, Rejected) and row.reason == "truncated")
            yield row
    if not damaged:
        yield reject(raw, "truncated", "The SQLite file is shorter than its header says.")


def _read(raw: RawObject, path: Path, name: str, reason: str) -> Iterator[Draft | Rejected]:
    deadline = time.monotonic() + _SECONDS
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        database.set_progress_handler(lambda: int(time.monotonic() > deadline), 100_000)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA cell_size_check = ON")
            tables = [str(row[0]) for row in database.execute(_TABLES)]
        except sqlite3.Error as error:
            yield reject(raw, reason, f"The SQLite file is damaged: {error}.", locator="schema")
            return
        names = _names(database, tables)
        for table in tables:
            try:
                yield from _rows(raw, database, table, name, names)
            except sqlite3.Error as error:
                detail = f"The table cannot be read to its end: {error}."
                yield reject(raw, reason, detail, locator=f"table {table}")


def _rows(
    raw: RawObject, database: sqlite3.Connection, table: str, name: str, names: Names
) -> Iterator[Draft | Rejected]:
    described = _describe(database, table, names)
    columns = ", ".join(_quoted(column) for column in described.columns)
    rows = database.execute(f"SELECT {columns} FROM {_quoted(table)}")  # noqa: S608 - names are quoted
    for number, values in enumerate(rows, 1):
        locator = f"table {table} row {number}"
        try:
            yield row_draft(described, values, file=name, number=number, locator=locator)
        except Exception as error:
            yield rejected_by(error, raw, locator=locator, sample=repr(values)[:400])


def _describe(database: sqlite3.Connection, table: str, names: Names) -> Table:
    info = database.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    columns = [str(row[1]) for row in info]
    keys = [str(row[1]) for row in info if row[5]]
    foreign = {column: names.found.get(target, {}) for column, target in _foreign(database, table)}
    numeric = [column for column in columns if _is_numeric(database, table, column)]
    return describe(table, columns, key=keys, numeric=numeric, foreign=foreign, names=foreign)


def _foreign(database: sqlite3.Connection, table: str) -> list[tuple[str, tuple[str, str]]]:
    """Each column of a foreign key, with the (table, column) it points to."""
    found = []
    for row in database.execute(f"PRAGMA foreign_key_list({_quoted(table)})").fetchall():
        target, own, theirs = str(row[2]), str(row[3]), row[4]
        if theirs is None:  # the primary key
            info = database.execute(f"PRAGMA table_info({_quoted(target)})")
            theirs = next((column[1] for column in info if column[5] == 1), "")
        found.append((own, (target, str(theirs))))
    return found


def _names(database: sqlite3.Connection, tables: list[str]) -> Names:
    """The names of rows that foreign keys point to; damage shows when the rows are read."""
    names = Names()
    for table in tables:
        with suppress(sqlite3.Error):
            for _, (target, column) in _foreign(database, table):
                if target in tables:
                    names.want(target, column)
    for target in dict.fromkeys(target for target, _ in names.found):
        with suppress(sqlite3.Error):
            columns = [str(row[1]) for row in database.execute(f"PRAGMA table_info({_quoted(target)})")]
            described = describe(target, columns)
            wanted = {column for table, column in names.found if table == target}
            picked = [
                index
                for index, column in enumerate(columns)
                if column in wanted or index in described.name_columns
            ]
            narrow = describe(target, [columns[index] for index in picked])
            listed = ", ".join(_quoted(columns[index]) for index in picked)
            for values in database.execute(f"SELECT {listed} FROM {_quoted(target)}"):  # noqa: S608 - quoted
                names.remember(narrow, values)
                if names.left <= 0:
                    break
    return names


def _is_numeric(database: sqlite3.Connection, table: str, column: str) -> bool:
    """Whether the first rows hold numbers and nothing else; declared types promise little in SQLite."""
    query = (
        f"SELECT count(*), sum(kind IN ('integer', 'real')) FROM "  # noqa: S608 - names are quoted
        f"(SELECT typeof({_quoted(column)}) AS kind FROM {_quoted(table)} LIMIT 100000) WHERE kind != 'null'"
    )
    try:
        count, numbers = database.execute(query).fetchone()
    except sqlite3.Error:
        return False  # damage shows when the rows are read
    return bool(count) and count == numbers


def _declared(path: Path) -> tuple[int, int]:
    """Page size and file size that the header declares; a file size of 0 where it is not to be trusted."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100:
        return 512, 512
    page = int.from_bytes(head[16:18], "big")
    page = 65536 if page == 1 else max(page, 512)
    pages = int.from_bytes(head[28:32], "big")
    return page, page * pages if head[24:28] == head[92:96] else 0


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
