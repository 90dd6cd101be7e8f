"""SQL dumps of PostgreSQL (COPY or INSERT), MySQL and SQLite, read line by line.

Read first for the tables, because pg_dump writes keys after the data, then, where foreign keys point to rows
with names, for these names, and then for the rows.
Only CREATE TABLE, ALTER TABLE ... KEY, COPY and INSERT are understood; nothing is executed.
"""

import codecs
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.reasons import reject, rejected_by
from alchemy.sources.rows import Names, Table, Value, describe, row_draft
from alchemy.text.decode import Undecodable, decode, wide_encoding

_PIECE = 1 << 20  # bytes of a line that are read at once
_MAX_SCHEMA = 4 << 20

_SQL = re.compile(r"^\s*(?:CREATE\s+TABLE|INSERT\s+INTO|COPY\s+\S+.{0,4000}\bFROM\s+stdin)\b", re.I | re.M)
_NAME = r"""(?:"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|[\w$]+)"""
_QUALIFIED = rf"({_NAME}(?:\s*\.\s*{_NAME})?)"
_CREATE = re.compile(
    rf"\s*CREATE\s+(?:\w+\s+){{0,2}}TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_QUALIFIED}\s*\(", re.I
)
_ALTER = re.compile(rf"\s*ALTER\s+TABLE\s+(?:ONLY\s+)?{_QUALIFIED}", re.I)
_COPY = re.compile(rf"\s*COPY\s+{_QUALIFIED}\s*(?:\(([^)]*)\))?\s*FROM\s+stdin\b", re.I)
_INSERT = re.compile(
    rf"\s*INSERT\s+(?:\w+\s+){{0,2}}INTO\s+{_QUALIFIED}\s*(?:\(([^)]*)\))?\s*(?:OVERRIDING\s+\w+\s+VALUE\s+)?VALUES\b",
    re.I,
)
_STATEMENT = re.compile(
    r"(?:--|SET\s|SELECT\s|CREATE\s|ALTER\s|INSERT\s+INTO\s|COPY\s\S+.*FROM\s+stdin|DROP\s|LOCK\s|UNLOCK\s|/\*!)",
    re.I,
)
_START = re.compile(
    r"\s*(?:INSERT\s+(?:\w+\s+){0,2}INTO|CREATE\s+(?:\w+\s+){0,2}TABLE|COPY\s+\S+.*FROM\s+stdin)\b", re.I
)
_PRIMARY = re.compile(r"PRIMARY\s+KEY\s*\(([^)]*)\)", re.I)
_FOREIGN = re.compile(r"FOREIGN\s+KEY\s*\(([^)]*)\)", re.I)
_REFERENCES = re.compile(rf"\bREFERENCES\s+{_QUALIFIED}\s*(?:\(([^)]*)\))?", re.I)
_COLUMN = re.compile(rf"\s*({_NAME})\s+([a-z]\w*)", re.I)
_CONSTRAINT = re.compile(
    r"\s*(?:CONSTRAINT|PRIMARY\s+KEY|FOREIGN\s+KEY|UNIQUE|CHECK|KEY|INDEX|FULLTEXT|SPATIAL|EXCLUDE|LIKE)\b",
    re.I,
)
_NUMBERS = re.compile(
    r"(?:(?:tiny|small|medium|big)?int|integer|numeric|decimal|real|double|float|money|(?:big)?serial)\d?\b",
    re.I,
)
_ITEM = re.compile(rf"{_NAME}")
# One value of an INSERT: a quoted text (backslash or doubled quote inside), or anything up to , or ).
_VALUE = re.compile(
    r"\s*(?:[A-Za-z_]{0,12} ?'((?:[^'\\]++|\\.|'')*+)'(?:::[\w ]{1,40}(?:\(\d+\))?)?"
    r"|([^\s,()'][^,()']*+(?:\([^()']*\))?))\s*([,)])",
    re.DOTALL,
)
_OPEN = re.compile(r"[\s,]*\(")
_END = re.compile(r"\s*;")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0", "Z": "\x1a"}
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_QUOTED_ESCAPE = re.compile(r"\\(.)|''", re.DOTALL)
_BYTEA = re.compile(r"\\x[0-9a-fA-F]*\Z")


@dataclass
class _Schema:
    columns: list[str] = field(default_factory=list)
    numeric: set[str] = field(default_factory=set)
    key: list[str] = field(default_factory=list)
    # The table and column that a column points to; ("", "") for a key of several columns.
    foreign: dict[str, tuple[str, str]] = field(default_factory=dict)


def looks_like_sql(text: str) -> bool:
    return bool(_SQL.search(text))


def read_sql(raw: RawObject, path: Path, name: str, limit: int) -> Iterator[Draft | Rejected]:
    """Rows of all tables in file order; `limit` is the most bytes that one row or line may have."""
    with _as_utf8(path) as readable:
        yield from _Dump(raw, readable, name, limit).read()


class _Dump:
    def __init__(self, raw: RawObject, path: Path, name: str, limit: int) -> None:
        self.raw, self.path, self.name, self.limit = raw, path, name, limit
        self.schemas: dict[str, _Schema] = {}
        self.counts: dict[str, int] = {}
        self.names = Names()
        self.collecting = False

    def read(self) -> Iterator[Draft | Rejected]:
        self.find_schemas()
        self.find_names()
        lines = _Lines(self.path)
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
        lines = _Lines(self.path)
        for line in lines:
            if not lines.starts or self.names.left <= 0:
                continue
            if found_copy := _COPY.match(line):
                if _bare(found_copy.group(1)) in wanted:
                    _exhaust(self.copy(lines, found_copy))
                else:
                    _skip_copy(lines)
            elif (found_insert := _INSERT.match(line)) and _bare(found_insert.group(1)) in wanted:
                _exhaust(self.insert(lines, line, found_insert))
        self.collecting = False
        self.counts.clear()

    def find_schemas(self) -> None:
        lines = _Lines(self.path)
        for line in lines:
            if not lines.starts:
                continue
            if _COPY.match(line):
                _skip_copy(lines)
            elif _CREATE.match(line):
                self.create(_statement(lines, line))
            elif _ALTER.match(line):
                self.alter(_statement(lines, line))

    def create(self, text: str) -> None:
        found = _CREATE.match(text)
        if not found:
            return
        schema = self.schemas.setdefault(_bare(found.group(1)), _Schema())
        for definition in _split(text[found.end() :]):
            if primary := _PRIMARY.search(definition):
                schema.key = _items(primary.group(1))
            _add_foreign(schema, definition)
            column = None if _CONSTRAINT.match(definition) else _COLUMN.match(definition)
            if column:
                column_name = _bare(column.group(1))
                schema.columns.append(column_name)
                if references := _REFERENCES.search(definition):
                    schema.foreign[column_name] = _target(references)
                if _NUMBERS.match(column.group(2)):
                    schema.numeric.add(column_name)
                if re.search(r"\bPRIMARY\s+KEY\b", definition, re.I):
                    schema.key = [column_name]

    def alter(self, text: str) -> None:
        found = _ALTER.match(text)
        schema = self.schemas.get(_bare(found.group(1))) if found else None
        if schema is None:
            return
        if primary := _PRIMARY.search(text):
            schema.key = _items(primary.group(1))
        _add_foreign(schema, text)

    def table(self, name: str, listed: str | None) -> Table:
        schema = self.schemas.get(name, _Schema())
        columns = _items(listed) if listed else schema.columns
        names = {column: self.names.found.get(target, {}) for column, target in schema.foreign.items()}
        return describe(
            name, columns, key=schema.key, numeric=schema.numeric, foreign=schema.foreign, names=names
        )

    def copy(self, lines: "_Lines", found: re.Match[str]) -> Iterator[Draft | Rejected]:
        table = self.table(_bare(found.group(1)), found.group(2))
        place = f"table {_shown(found.group(1))}"
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
            yield self.row(table, [_copied(cell) for cell in cells], place, text)
        detail = "The dump ends inside the data of the table; the rows before that were read."
        yield reject(self.raw, "truncated", detail, locator=f"{place} line {lines.number}")

    def insert(self, lines: "_Lines", line: str, found: re.Match[str]) -> Iterator[Draft | Rejected]:
        """The rows of one INSERT; reads on while a row is not whole, in steps that double."""
        table = self.table(_bare(found.group(1)), found.group(2))
        place = f"table {_shown(found.group(1))}"
        text, at, enough = line, found.end(), 0
        while True:
            opening = _OPEN.match(text, at)
            values, end = _values(text, opening.end()) if opening else (None, at)
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


class _Lines(Iterator[str]):
    """Decoded lines of a dump; a long line comes in pieces, so that one INSERT may be larger than memory."""

    def __init__(self, path: Path) -> None:
        self.number = 0
        self.starts = True  # whether the piece that came last began a line
        self._back: list[str] = []
        self._pieces = self._read(path)

    def __next__(self) -> str:
        if self._back:
            self.starts = True
            self.number += 1
            return self._back.pop()
        text, self.starts = next(self._pieces)
        self.number += self.starts
        return text

    def push_back(self, line: str) -> None:
        """Gives a line back, or the end of one, which then is a line of its own."""
        if line.strip():
            self.number -= 1
            self._back.append(line)

    def whole(self, piece: str, limit: int) -> str | None:
        """The line that `piece` begins, None if it is longer than `limit` characters."""
        if piece.endswith("\n"):
            return piece
        pieces, size = [piece], len(piece)
        while not pieces[-1].endswith("\n"):
            following = next(self._pieces, None)
            if following is None:
                break
            size += len(following[0])
            pieces = [*pieces, following[0]] if size <= limit else [following[0]]
        return "".join(pieces) if size <= limit else None

    def skip_line(self) -> int:
        """Reads on to the end of the line and returns how many characters that were."""
        size = 0
        for text, _ in self._pieces:
            size += len(text)
            if text.endswith("\n"):
                break
        return size

    @staticmethod
    def _read(path: Path) -> Iterator[tuple[str, bool]]:
        with path.open("rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            carried, starts = b"", True
            while data := file.readline(_PIECE):
                data, carried = carried + data, b""
                if not data.endswith(b"\n"):
                    # No character of any encoding of SQL dumps has a comma's byte inside.
                    cut = data.rfind(b",") + 1 or _last_character(data)
                    data, carried = data[:cut], data[cut:]
                if data:
                    yield _decoded(data), starts
                    starts = data.endswith(b"\n")
            if carried:
                yield _decoded(carried), starts


def _exhaust(rows: Iterator[Any]) -> None:
    for _ in rows:
        pass


def _last_character(data: bytes) -> int:
    """Where the last UTF-8 character begins, if it is not whole; else the end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            whole = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < whole else len(data)
        if byte < 0x80:
            break
    return len(data)


def _skip_copy(lines: _Lines) -> None:
    """Reads to the end of the data of a COPY, or to the statement after data without an end."""
    for line in lines:
        if not lines.starts:
            continue
        if line.startswith("\\."):
            return
        if _STATEMENT.match(line) and _is_new(line):
            lines.push_back(line)
            return


@contextmanager
def _as_utf8(path: Path) -> Iterator[Path]:
    """The file, or a UTF-8 copy of a UTF-16 file, as PowerShell's `>` makes them."""
    with path.open("rb") as file:
        head = file.read(4096)
    wide = wide_encoding(head.removeprefix(codecs.BOM_UTF16_LE).removeprefix(codecs.BOM_UTF16_BE))
    if not wide:
        yield path
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".sql") as copy:
        with path.open(encoding=wide, errors="replace", newline="") as text:
            while block := text.read(1 << 20):
                copy.write(block.removeprefix("\ufeff").encode("utf-8", "replace").decode())
        copy.flush()
        yield Path(copy.name)


def _add_foreign(schema: _Schema, text: str) -> None:
    foreign = _FOREIGN.search(text)
    if not foreign:
        return
    columns, references = _items(foreign.group(1)), _REFERENCES.search(text)
    target = _target(references) if references and len(columns) == 1 else ("", "")
    schema.foreign.update(dict.fromkeys(columns, target))


def _target(references: re.Match[str]) -> tuple[str, str]:
    columns = _items(references.group(2) or "")
    return _bare(references.group(1)), columns[0] if columns else ""


def _decoded(line: bytes) -> str:
    try:
        return decode(line).text
    except Undecodable:
        return line.decode("utf-8", "replace")


def _statement(lines: _Lines, line: str) -> str:
    """The lines up to the one that ends with a semicolon; bounded, because only schemas are read so."""
    pieces, size = [line], len(line)
    while not pieces[-1].rstrip().endswith(";") and len(pieces) < 5000 and size < _MAX_SCHEMA:
        following = next(lines, None)
        if following is None:
            break
        pieces.append(following)
        size += len(following)
    return "".join(pieces)


def _more(lines: _Lines, size: int) -> tuple[str, bool]:
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


def _values(text: str, at: int) -> tuple[list[Value] | None, int]:
    """The values of "(a, 'b', NULL)" after the parenthesis, or None where the text ends before it closes."""
    values: list[Value] = []
    while found := _VALUE.match(text, at):
        quoted, plain, stop = found.groups()
        values.append(_unquoted(quoted) if quoted is not None else _plain(plain))
        at = found.end()
        if stop == ")":
            return values, at
    return None, at


def _unquoted(text: str) -> str | None:
    if "\\" not in text and "''" not in text:
        return text
    if _BYTEA.match(text):
        return None
    return _QUOTED_ESCAPE.sub(_unquote, text)


def _unquote(found: re.Match[str]) -> str:
    escaped = found.group(1)
    return _ESCAPES.get(escaped, escaped) if escaped else "'"


def _plain(text: str) -> Value:
    text = text.strip()
    lowered = text.lower()
    if lowered in ("null", "default") or lowered.startswith(("x'", "0x")):
        return None
    return text


def _copied(cell: str) -> Value:
    if cell == "\\N":
        return None
    if "\\" not in cell:
        return cell
    if cell.startswith("\\\\x") and _BYTEA.match(cell[1:]):
        return None  # binary data
    return _ESCAPE.sub(_unescape, cell)


def _unescape(found: re.Match[str]) -> str:
    octal, hexadecimal, other = found.groups()
    if octal:
        return chr(int(octal, 8) & 0xFF)
    return chr(int(hexadecimal, 16)) if hexadecimal else _ESCAPES.get(other, other)


def _split(text: str) -> Iterator[str]:
    """Column definitions of a CREATE TABLE: split at commas outside parentheses and quotes."""
    depth, start = 0, 0
    for found in re.finditer(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|[(),]", text):
        mark = found.group()
        if mark == "(":
            depth += 1
        elif mark == ")":
            depth -= 1
            if depth < 0:
                yield text[start : found.start()]
                return
        elif mark == "," and not depth:
            yield text[start : found.start()]
            start = found.end()
    yield text[start:]


def _is_new(line: str) -> bool:
    """Whether a line inside COPY data can only be the beginning of something else."""
    return not line.strip() or bool(_STATEMENT.match(line))


def _items(text: str) -> list[str]:
    return [_bare(item) for item in _ITEM.findall(text)]


def _bare(name: str) -> str:
    """A name without schema and quotes."""
    last = _ITEM.findall(name)[-1]
    return last.strip('"`[]').replace('""', '"')


def _shown(name: str) -> str:
    return ".".join(part.strip('"`[]') for part in _ITEM.findall(name))
