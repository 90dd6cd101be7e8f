"""SQL dumps, read line by line.

| written by | rows |
|---|---|
| `pg_dump` | COPY data, or INSERT with `--inserts` |
| `mysqldump` | INSERT with many rows in one line |
| `sqlite3 .dump` | INSERT |

Read first for the tables, because pg_dump writes keys after the data, then, where foreign keys point to rows
with names, for these names, and then for the rows.
Only CREATE TABLE, ALTER TABLE ... KEY, COPY and INSERT are understood; nothing is executed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.reasons import reject, rejected_by
from alchemy.sources.rows import Names, Table, Value, describe, row_draft
from alchemy.sources.sql_lines import Lines, as_utf8
from alchemy.sources.sql_schema import (
    ALTER_TABLE,
    CREATE_TABLE,
    QUALIFIED,
    Schema,
    add_table,
    alter_table,
    bare,
    items,
    shown,
)
from alchemy.sources.sql_values import copied_value, inserted_values

_MAX_SCHEMA = 4 << 20
_SQL = re.compile(r"^\s*(?:CREATE\s+TABLE|INSERT\s+INTO|COPY\s+\S+.{0,4000}\bFROM\s+stdin)\b", re.I | re.M)
_COPY = re.compile(rf"\s*COPY\s+{QUALIFIED}\s*(?:\(([^)]*)\))?\s*FROM\s+stdin\b", re.I)
_INSERT = re.compile(
    rf"\s*INSERT\s+(?:\w+\s+){{0,2}}INTO\s+{QUALIFIED}\s*(?:\(([^)]*)\))?\s*(?:OVERRIDING\s+\w+\s+VALUE\s+)?VALUES\b",
    re.I,
)
_STATEMENT = re.compile(
    r"(?:--|SET\s|SELECT\s|CREATE\s|ALTER\s|INSERT\s+INTO\s|COPY\s\S+.*FROM\s+stdin|DROP\s|LOCK\s|UNLOCK\s|/\*!)",
    re.I,
)
_START = re.compile(
    r"\s*(?:INSERT\s+(?:\w+\s+){0,2}INTO|CREATE\s+(?:\w+\s+){0,2}TABLE|COPY\s+\S+.*FROM\s+stdin)\b", re.I
)
_OPEN = re.compile(r"[\s,]*\(")
_END = re.compile(r"\s*;")


def looks_like_sql(text: str) -> bool:
    return bool(_SQL.search(text))


def read_sql(raw: RawObject, path: Path, name: str, limit: int) -> Iterator[Draft | Rejected]:
    """Rows of all tables in file order; `limit` is the most bytes that one row or line may have."""
    with as_utf8(path) as readable:
        yield from _Dump(raw, readable, name, limit).read()


class _Dump:
    def __init__(self, raw: RawObject, path: Path, name: str, limit: int) -> None:
        self.raw, self.path, self.name, self.limit = raw, path, name, limit
        self.schemas: dict[str, Schema] = {}
        self.counts: dict[str, int] = {}
        self.names = Names()
        self.collecting = False

    def read(self) -> Iterator[Draft | Rejected]:
        self.find_schemas()
        self.find_names()
        lines = Lines(self.path)
        for line in lines:
            if not lines.starts:
                continue
            if found := _COPY.match(line):
                yield from self.copy(lines, found)
            elif found := _INSERT.match(line):
                yield from self.insert(lines, line, found)
            elif not line.endswith("\n") and lines.skip_line() > self.limit:
                detail = f"The line is longer than {self.limit} bytes."
                yield reject(self.raw, "too_large", detail, locator=f"line {lines.number}", sample=line[:400])

    def find_names(self) -> None:
        """Collects the names of rows that foreign keys point to, where there are any."""
        for schema in self.schemas.values():
            for column, (table, listed) in schema.foreign.items():
                found = self.schemas.get(table)
                if found is None:
                    continue
                target = listed or (found.key[0] if len(found.key) == 1 else "")
                schema.foreign[column] = table, target
                if describe(table, found.columns).name_columns:
                    self.names.want(table, target)
        wanted = {table for table, _ in self.names.found}
        if not wanted:
            return
        self.collecting = True
        lines = Lines(self.path)
        for line in lines:
            if not lines.starts or self.names.left <= 0:
                continue
            if found_copy := _COPY.match(line):
                if bare(found_copy.group(1)) in wanted:
                    _exhaust(self.copy(lines, found_copy))
                else:
                    _skip_copy(lines)
            elif (found_insert := _INSERT.match(line)) and bare(found_insert.group(1)) in wanted:
                _exhaust(self.insert(lines, line, found_insert))
        self.collecting = False
        self.counts.clear()

    def find_schemas(self) -> None:
        lines = Lines(self.path)
        for line in lines:
            if not lines.starts:
                continue
            if _COPY.match(line):
                _skip_copy(lines)
            elif CREATE_TABLE.match(line):
                add_table(self.schemas, _statement(lines, line))
            elif ALTER_TABLE.match(line):
                alter_table(self.schemas, _statement(lines, line))

    def table(self, name: str, listed: str | None) -> Table:
        schema = self.schemas.get(name, Schema())
        columns = items(listed) if listed else schema.columns
        names = {column: self.names.found.get(target, {}) for column, target in schema.foreign.items()}
        return describe(
            name, columns, key=schema.key, numeric=schema.numeric, foreign=schema.foreign, names=names
        )

    def copy(self, lines: Lines, found: re.Match[str]) -> Iterator[Draft | Rejected]:
        table = self.table(bare(found.group(1)), found.group(2))
        place = f"table {shown(found.group(1))}"
        width = len(table.columns)
        for piece in lines:
            line = lines.whole(piece, self.limit)
            if line is None:
                detail = f"The line is longer than {self.limit} bytes."
                yield reject(self.raw, "too_large", detail, locator=f"{place} line {lines.number}")
                continue
            text = line.rstrip("\r\n")
            if text == "\\.":
                return
            cells = text.split("\t")
            # In a table of one column only the beginning of another statement's data is told from a row.
            if (len(cells) != width and _is_new(text)) or (width == 1 and _START.match(text)):
                lines.push_back(line)
                detail = "The data of the table does not end with '\\.' before the next statement."
                where = f"{place} line {lines.number}"
                yield reject(self.raw, "truncated", detail, locator=where, sample=text)
                return
            yield self.row(table, [copied_value(cell) for cell in cells], place, text)
        detail = "The dump ends inside the data of the table; the rows before that were read."
        yield reject(self.raw, "truncated", detail, locator=f"{place} line {lines.number}")

    def insert(self, lines: Lines, line: str, found: re.Match[str]) -> Iterator[Draft | Rejected]:
        """The rows of one INSERT; reads on while a row is not whole, in steps that double."""
        table = self.table(bare(found.group(1)), found.group(2))
        place = f"table {shown(found.group(1))}"
        text, at, enough = line, found.end(), 0
        while True:
            opening = _OPEN.match(text, at)
            values, end = inserted_values(text, opening.end()) if opening else (None, at)
            if values is not None:
                if not table.columns:
                    table = describe(table.name, [f"column {index + 1}" for index in range(len(values))])
                yield self.row(table, values, place, text[at : at + 400])
                at = end
                continue
            if ended_here := _END.match(text, at):
                lines.push_back(text[ended_here.end() :])  # another statement may follow on the line
                return
            text, at = text[at:], 0
            enough = max(2 * len(text), enough)
            more, ended = _more(lines, enough - len(text) + 1)
            text += more
            if ended and not more:
                if text.strip(" \t\r\n,"):
                    yield self.unfinished(text, f"{place} line {lines.number}")
                return
            if len(text) > self.limit:
                detail = f"A row of the INSERT is longer than {self.limit} bytes, or is not SQL."
                where = f"{place} line {lines.number}"
                yield reject(self.raw, "too_large", detail, locator=where, sample=text[:400])
                return

    def unfinished(self, text: str, locator: str) -> Rejected:
        """The row for an INSERT whose rest could not be cut into values."""
        if text.rstrip().endswith(";"):
            detail = (
                "A value of the INSERT is of a form not known here; its rows from there on were not read."
            )
            return reject(self.raw, "unreadable_record", detail, locator=locator, sample=text[:400])
        detail = "The INSERT stops in the middle of a row; the rows before it were read."
        return reject(self.raw, "truncated", detail, locator=locator, sample=text[:400])

    def row(self, table: Table, values: list[Value], place: str, sample: str) -> Draft | Rejected:
        if self.collecting:
            self.names.remember(table, values)
            return _NOTHING
        number = self.counts[table.name] = self.counts.get(table.name, 0) + 1
        locator = f"{place} row {number}"
        if len(values) != len(table.columns):
            detail = f"The row has {len(values)} columns, its table has {len(table.columns)}."
            return reject(self.raw, "ragged_row", detail, locator=locator, sample=sample[:400])
        try:
            return row_draft(table, values, file=self.name, number=number, locator=locator)
        except Exception as error:
            return rejected_by(error, self.raw, locator=locator, sample=sample[:400])


# What a row gives while only names are collected.
_NOTHING = Rejected("", "", "", "", "filtered", "read", "no_text", "")


def _exhaust(rows: Iterator[Any]) -> None:
    for _ in rows:
        pass


def _skip_copy(lines: Lines) -> None:
    """Reads to the end of the data of a COPY, or to the statement after data without an end."""
    for line in lines:
        if not lines.starts:
            continue
        if line.startswith("\\."):
            return
        if _STATEMENT.match(line) and _is_new(line):
            lines.push_back(line)
            return


def _statement(lines: Lines, line: str) -> str:
    """The lines up to the one that ends with a semicolon; bounded, because only schemas are read so."""
    pieces, size = [line], len(line)
    while not pieces[-1].rstrip().endswith(";") and len(pieces) < 5000 and size < _MAX_SCHEMA:
        following = next(lines, None)
        if following is None:
            break
        pieces.append(following)
        size += len(following)
    return "".join(pieces)


def _more(lines: Lines, size: int) -> tuple[str, bool]:
    """At least `size` more characters of a statement, and whether it cannot go on after them."""
    pieces: list[str] = []
    total = 0
    while total < size:
        line = next(lines, None)
        if line is None:
            return "".join(pieces), True
        if lines.starts and _START.match(line):  # the next statement: what was read so far never ended
            lines.push_back(line)
            return "".join(pieces), True
        pieces.append(line)
        total += len(line)
    return "".join(pieces), False


def _is_new(line: str) -> bool:
    """Whether a line inside COPY data can only be the beginning of something else."""
    return not line.strip() or bool(_STATEMENT.match(line))
