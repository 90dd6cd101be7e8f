"""The text of a PDF, page by page; runs inside the extractor's child process only.

pypdfium2 reads nearly everything; pypdf is asked where PDFium cannot open the file. Running headers and
footers are dropped, and lines are joined into paragraphs.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from alchemy.sources.paragraphs import unwrap_page
from alchemy.sources.refused import Refused

_MAX_PAGES = 10_000
_HYPHENS = re.compile(r"[\x02\ufffe](?:\r?\n)?")  # PDFium's mark for a hyphen at a line end
_LINE_END_HYPHEN = re.compile(r"([a-zà-öø-ÿ])[-\xad]\r?\n([a-zà-öø-ÿ])")
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?")
_PAGE_NUMBER = re.compile(
    r"(?:(?:page|p\.|seite) ?)?[-–]? ?#(?: ?(?:/|of|von) ?#)? ?[-–]?\Z"
)  # of a line's shape
_RUNNING_PAGES = 4  # with fewer pages nothing is called a running header
_EDGE_LINES = 2


def extract_pdf(path: str, limit: int) -> dict[str, Any]:
    """`pages` (a list of paragraphs for each page), `title`, `author`, `created`, `images`.

    Raises:
        Refused: `encrypted`, `broken`, `empty`, `no_text_layer` or `too_large`.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        # PDFium may still tell the error of the file before, so the file itself has to agree.
        if "password" in str(error).lower() and b"/Encrypt" in Path(path).read_bytes():
            raise Refused("encrypted", "The PDF can be opened only with a password.") from error
        return _with_pypdf(path, limit)
    try:
        return _with_pdfium(document, limit)
    finally:
        document.close()


def _with_pdfium(document: Any, limit: int) -> dict[str, Any]:
    pages, objects, size = [], 0, 0
    if len(document) > _MAX_PAGES:
        raise Refused("too_large", f"The PDF has {len(document)} pages.")
    for number in range(len(document)):
        page = document[number]
        text_page = page.get_textpage()
        text = text_page.get_text_bounded()
        size += len(text)
        if size > limit:
            raise Refused("too_large", f"The PDF's text is longer than {limit} characters.")
        pages.append(text)
        if not text.strip():
            objects += sum(1 for _ in page.get_objects(max_depth=1))
        text_page.close()
        page.close()
    metadata = document.get_metadata_dict()
    return _result(
        pages, objects, {name: metadata.get(name, "") for name in ("Title", "Author", "CreationDate")}
    )


def _with_pypdf(path: str, limit: int) -> dict[str, Any]:
    import pypdf

    try:
        reader = pypdf.PdfReader(path, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("encrypted", "The PDF can be opened only with a password.")
        pages, size = [], 0
        for page in reader.pages:
            pages.append(page.extract_text() or "")
            size += len(pages[-1])
            if size > limit:
                raise Refused("too_large", f"The PDF's text is longer than {limit} characters.")
        info: Any = reader.metadata or {}
        metadata = {name: str(info.get(f"/{name}") or "") for name in ("Title", "Author", "CreationDate")}
    except (Refused, MemoryError):
        raise
    except Exception as error:  # pypdf raises whatever its data structures raise
        raise Refused("broken", f"The PDF is damaged ({type(error).__name__}).") from error
    return _result(pages, 1, metadata)


def _result(pages: list[str], objects: int, metadata: dict[str, str]) -> dict[str, Any]:
    if not pages:
        raise Refused("empty", "The PDF has no pages.")
    if not any(text.strip() for text in pages):
        if not objects:
            raise Refused("empty", "Nothing stands on the PDF's pages.")
        raise Refused("no_text_layer", "The PDF's pages are pictures; there is no text to read.")
    lines = [_lines(text) for text in pages]
    running = _running(lines)
    return {
        "pages": [unwrap_page(_inner(page, running)) for page in lines],
        "title": metadata["Title"],
        "author": metadata["Author"],
        "created": _iso(metadata["CreationDate"]),
    }


def _lines(text: str) -> list[str]:
    text = _HYPHENS.sub("", text)
    text = _LINE_END_HYPHEN.sub(r"\1\2", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def _running(pages: list[list[str]]) -> set[str]:
    """Lines at page edges that return on more than half of the pages, page numbers aside."""
    seen: Counter[str] = Counter()
    for page in pages:
        seen.update({_shape(line) for line in _edges(page)})
    most = len(pages) / 2 if len(pages) >= _RUNNING_PAGES else len(pages)
    numbered = {shape for shape in seen if len(pages) > 1 and _PAGE_NUMBER.match(shape)}
    return numbered | {shape for shape, count in seen.items() if count > most}


def _inner(page: list[str], running: set[str]) -> list[str]:
    filled = [line for line in page if line]
    if not running:
        return page
    top = next((at for at, line in enumerate(filled) if at >= _EDGE_LINES or _shape(line) not in running), 0)
    end = len(filled)
    while end > top and end > len(filled) - _EDGE_LINES and _shape(filled[end - 1]) in running:
        end -= 1
    return filled[top:end]


def _edges(page: list[str]) -> list[str]:
    filled = [line for line in page if line]
    return filled[:_EDGE_LINES] + filled[-_EDGE_LINES:]


def _shape(line: str) -> str:
    return re.sub(r"\d+", "#", line.lower())


def _iso(date: str) -> str:
    match = _DATE.match(date)
    if not match:
        return ""
    year, month, day, hour, minute, second = (group or "" for group in match.groups())
    if not month or not day:
        return ""
    time = f"T{hour}:{minute}:{second}" if hour and minute and second else ""
    return f"{year}-{month}-{day}{time}"
