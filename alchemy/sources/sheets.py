"""The cells of an XLSX file, sheet by sheet; runs inside the extractor's child process only.

Formulas read as the values that were last computed. A long sheet becomes several tables, each with the
sheet's first row above it, so that every passage names its columns.
"""

from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from alchemy.sources.refused import Refused

_TABLE_ROWS = 50
_MAX_COLUMNS = 500
_MAX_BLANK_ROWS = 2_000  # one after another; a stray cell in row 1,048,576 is not worth the walk


def extract_xlsx(path: str, limit: int) -> dict[str, Any]:
    """`parts` (kind, text, level): a heading and tables for each sheet.

    Raises:
        Refused: `broken`, `empty` or `too_large`.
    """
    import openpyxl

    try:
        with Path(path).open("rb") as file:  # openpyxl judges a path by its name
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            parts: list[tuple[str, str, int]] = []
            left = limit
            for sheet in book.worksheets:
                tables, left = _tables(sheet, left)
                if tables:
                    parts += [("heading", sheet.title, 1), *(("table", table, 0) for table in tables)]
            properties = book.properties
            created = properties.modified or properties.created
            book.close()
    except (Refused, MemoryError):
        raise
    except Exception as error:  # openpyxl raises whatever a missing part leads to
        raise Refused("broken", f"The XLSX file is damaged ({type(error).__name__}).") from error
    if not parts:
        raise Refused("empty", "The workbook's cells are empty.")
    return {
        "parts": parts,
        "title": properties.title or "",
        "author": properties.creator if properties.creator != "openpyxl" else "",
        "created": created.isoformat() if created else "",
        "images": 0,
    }


def _tables(sheet: Any, left: int) -> tuple[list[str], int]:
    """The sheet's tables as text, and how many of `left` characters they leave."""
    sheet.reset_dimensions()  # what the file says of its size is often wrong
    tables: list[str] = []
    header, rows, blank = "", [], 0
    for cells in sheet.iter_rows(max_col=_MAX_COLUMNS, values_only=True):
        texts = [_text(cell) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        if not texts:
            blank += 1
            if blank > _MAX_BLANK_ROWS:
                break
            continue
        blank = 0
        row = " | ".join(texts)
        left -= len(row)
        if left < 0:
            raise Refused("too_large", "The workbook's text is longer than the limit.")
        if not header:
            header = row
            continue
        rows.append(row)
        if len(rows) == _TABLE_ROWS:
            tables.append("\n".join([header, *rows]))
            rows = []
    if header and (rows or not tables):
        tables.append("\n".join([header, *rows]))
    return tables, left


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, datetime) and value.time() == time(0):
        value = value.date()
    if isinstance(value, date | time):
        return value.isoformat()
    return " ".join(str(value).split())
