"""CSV files with a header line; the file is the table. Read twice: once to see which columns are numbers."""

import codecs
import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.reasons import reject, rejected_by
from alchemy.sources.rows import Table, describe, is_number, row_draft
from alchemy.text.decode import decode, wide_encoding

_DELIMITERS = ",;\t|"
_MAX_CELL = 16 << 20
_MAX_LINE = 64 << 20  # a longer line comes in pieces, and its row is refused
_TYPED_ROWS = 100_000  # rows that decide which columns are numbers


def read_csv(raw: RawObject, path: Path, name: str, head: str) -> Iterator[Draft | Rejected]:
    """Drafts of all rows; `head` is the decoded beginning of the file."""
    delimiter = _delimiter(head)
    if not delimiter:
        yield reject(raw, "unsupported", "The text is neither SQL nor a table with columns.", sample=head)
        return
    with _rows(path, delimiter) as rows:
        table = _describe(name, rows)
    if len(set(table.columns)) != len(table.columns):
        yield reject(raw, "wrong_shape", "Two columns of the header have the same name.", sample=head)
        return
    width = len(table.columns)
    with _rows(path, delimiter) as rows:
        next(rows)
        number = 0
        while True:
            locator = f"row {number + 1}"
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                detail = f"The CSV reader refused the row: {error}."
                yield reject(raw, "unreadable_record", detail, locator=locator)
                continue
            if not values:
                continue
            number += 1
            if values == list(table.columns):
                continue  # a header repeated by an export in pages
            if len(values) != width:
                detail = f"The row has {len(values)} columns, the header has {width}."
                sample = delimiter.join(values)[:400]
                yield reject(raw, "ragged_row", detail, locator=locator, sample=sample)
                continue
            try:
                yield row_draft(table, values, file=name, number=number, locator=locator, per_file=True)
            except Exception as error:
                yield rejected_by(error, raw, locator=locator, sample=delimiter.join(values)[:400])


@contextmanager
def _rows(path: Path, delimiter: str) -> "Iterator[Iterator[list[str]]]":
    csv.field_size_limit(_MAX_CELL)
    with path.open("rb") as file:
        yield csv.reader(_lines(file), delimiter=delimiter, strict=False)


def _lines(file: io.BufferedReader) -> Iterator[str]:
    """Decoded lines; each line that is not UTF-8 is decoded on its own. UTF-16 files are read whole."""
    head = file.read(4096)
    file.seek(0)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or wide_encoding(head):
        yield from io.StringIO(decode(file.read()).text, newline="")
        return
    if head.startswith(codecs.BOM_UTF8):
        file.seek(3)
    encoding = ""
    while line := file.readline(_MAX_LINE):
        try:
            yield line.decode().replace("\0", "")
        except UnicodeDecodeError:
            # One guess for all lines: a short line alone says little about its encoding.
            encoding = encoding or _encoding(file, line)
            yield line.decode(encoding, "replace").replace("\0", "")


def _encoding(file: io.BufferedReader, line: bytes) -> str:
    place = file.tell()
    encoding = decode(line + file.read(1 << 18)).encoding
    file.seek(place)
    return encoding if encoding != "utf-8" else "cp1252"


def _delimiter(head: str) -> str:
    """The delimiter whose count is the same in the header and the next lines, "" if there is none."""
    lines = [line for line in head.splitlines() if line.strip()][:20]
    if not lines:
        return ""
    best, most = "", 0
    for delimiter in _DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        except csv.Error:
            continue
        alike = sum(1 for width in widths if width == widths[0])
        if widths[0] > 1 and alike * 2 >= len(widths) and widths[0] > most:
            best, most = delimiter, widths[0]
    return best


def _describe(name: str, rows: Iterator[list[str]]) -> Table:
    stem = name.rpartition("/")[2].rpartition(".")[0] or name
    header = [column.strip() for column in next(rows)]
    header = [column or f"column {index + 1}" for index, column in enumerate(header)]
    filled, numeric = [False] * len(header), [True] * len(header)
    for _ in range(_TYPED_ROWS):
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error:
            continue
        if len(row) != len(header):
            continue
        for index, value in enumerate(row):
            if value and numeric[index]:
                filled[index] = True
                numeric[index] = is_number(value.strip())
    kinds = zip(header, filled, numeric, strict=True)
    return describe(stem, header, numeric=[column for column, full, number in kinds if full and number])
