"""Manuals and other documents, one per file: PDF, DOCX, PPTX, XLSX, e-mail, Markdown, HTML and plain text.

The format is what the first bytes say. A name decides only between texts, and against a file that is named
as a binary format but holds plain text (an error page saved as `manual.pdf`): that one is `broken`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alchemy.records import Draft, Part, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.drafts import draft, iso, one_line, people
from alchemy.sources.email import is_mail, is_mbox, read_mail, read_mbox
from alchemy.sources.extract import EXTRACTOR
from alchemy.sources.markdown import markdown_parts
from alchemy.sources.paragraphs import unwrap
from alchemy.sources.reasons import Unreadable, rejected_by
from alchemy.text.decode import Undecodable, decode
from alchemy.text.html import heading_part, parse_html, read_html

_BINARY_NAMES = (".pdf", ".docx", ".doc", ".pptx", ".xlsx")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OLE = "EncryptedPackage".encode("utf-16-le")
_UNSUPPORTED = {
    b"{\\rtf": "Rich Text Format",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"SQLite format 3": "a database",
    b"Rar!": "a rar archive",
    b"7z\xbc\xaf": "a 7z archive",
}
_HTML = re.compile(
    r"\A\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,4000}?-->\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.I | re.S,
)
_MARKDOWN = re.compile(r"^(?:#{1,6} \S|```|\|? ?:?-{3,} ?\|)", re.M)
_WORD = re.compile(r"\w+")
_NO_TITLE = re.compile(r"\A(?:untitled|document|dokument|title|unknown|none|slide|page)?\W*\d*\Z", re.I)
_MADE_BY = re.compile(r"\A(?:microsoft (?:word|powerpoint|excel)) - ", re.I)
_FILE_NAME = re.compile(r"\.(?:docx?|pdf|indd|pptx?|xlsx?|tex|dvi|odt|rtf|fm|qxd)\Z", re.I)
_TITLE_LINE = 90


def read(raw: RawObject, path: Path, options: CleanOptions) -> Iterator[Draft | Rejected]:
    with path.open("rb") as file:
        head = file.read(4096)
    if is_mbox(head):
        yield from read_mbox(raw, path, options)
        return
    try:
        if path.stat().st_size > options.max_document_bytes:
            raise Unreadable("too_large", f"The file is larger than {options.max_document_bytes} bytes.")
        if is_mail(head, raw.key):
            yield from read_mail(raw, path, options)
            return
        yield _read(raw, path, head, options)
    except Exception as error:
        yield rejected_by(error, raw, sample=head)


def _read(raw: RawObject, path: Path, head: bytes, options: CleanOptions) -> Draft:
    name = raw.key.removeprefix(f"raw/{raw.source}/")
    if b"%PDF-" in head[:1024]:
        return _pdf(name, EXTRACTOR.extract(path, "pdf", options))
    if head.startswith(b"PK\x03\x04"):
        return _office(name, EXTRACTOR.extract(path, "office", options))
    if head.startswith(_OLE):
        if _ENCRYPTED_OLE in path.read_bytes():
            raise Unreadable("encrypted", "The Office document can be opened only with a password.")
        raise Unreadable("unsupported", "The file is an Office document of before 2007.")
    for magic, what in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise Unreadable("unsupported", f"The file is {what}.")
    named_binary = name.lower().endswith(_BINARY_NAMES)
    try:
        text = decode(path.read_bytes()).text
    except Undecodable as error:
        reason = "broken" if named_binary else "unsupported"
        raise Unreadable(reason, "The file is neither text nor a document format known here.") from error
    if named_binary:
        raise Unreadable(
            "broken", f"The file is named {name[name.rfind('.') :].lower()} but holds plain text."
        )
    return _text(name, text)


def _pdf(name: str, found: dict[str, Any]) -> Draft:
    pages: list[list[str]] = found["pages"]
    parts = []
    for number, paragraphs in enumerate(pages, 1):
        if len(pages) > 1 and any(paragraphs):
            parts.append(heading_part(f"Page {number}", 1))
        parts.append(Part("\n".join(paragraphs)))
    first = next((line for page in pages for line in page if line.strip()), "")
    lines = sum(len(page) for page in pages)
    fallback = first if lines > 2 and _is_title(first) else ""
    return _draft(name, found, parts, fallback, pages=len(pages), headings=0, tables=0)


def _office(name: str, found: dict[str, Any]) -> Draft:
    parts: list[Part] = []
    items: list[str] = []
    for kind, text, level in [*found["parts"], ("end", "", 0)]:
        if kind == "item":
            items.append(f"- {text}")
            continue
        if items:
            parts.append(Part("\n".join(items)))
            items = []
        if kind == "heading":
            parts.append(heading_part(text, level))
        elif kind != "end":
            parts.append(Part(text, "table" if kind == "table" else "prose"))
    headings = [text for kind, text, _ in found["parts"] if kind == "heading"]
    tables = sum(1 for part in parts if part.kind == "table")
    return _draft(
        name,
        found,
        parts,
        headings[0] if headings else "",
        pages=None,
        headings=len(headings),
        tables=tables,
        images=found["images"],
    )


def _text(name: str, text: str) -> Draft:
    suffix = name.lower().rpartition(".")[2]
    if _HTML.match(text[:8192]) or suffix in ("html", "htm", "xhtml"):
        content = read_html(parse_html(text))
        return _draft(
            name,
            {"title": content.title},
            content.parts,
            content.heading,
            headings=content.headings,
            tables=content.tables,
            images=content.images,
            links=content.links,
            code_blocks=content.code_blocks,
        )
    if suffix in ("md", "markdown", "mdx") or (suffix != "txt" and len(_MARKDOWN.findall(text[:65536])) > 1):
        markdown = markdown_parts(text)
        return _draft(
            name,
            {},
            markdown.parts,
            markdown.title,
            headings=markdown.headings,
            tables=markdown.tables,
            images=markdown.images,
            links=markdown.links,
            code_blocks=markdown.code_blocks,
        )
    text = text.replace("\r\n", "\n")
    first = next((line.strip() for line in text.split("\n") if line.strip()), "")
    return _draft(name, {}, [Part(unwrap(text))], first if _is_title(first) else "", headings=0, tables=0)


def _draft(
    name: str, found: dict[str, Any], parts: list[Part], fallback: str, **metrics: int | None
) -> Draft:
    title = _clean_title(found.get("title") or "") or _clean_title(fallback) or _stem(name)
    author = one_line(found.get("author"))
    words = sum(len(_WORD.findall(part.text)) for part in parts)
    if not words:
        raise Unreadable("empty", "The document holds no text.")
    return draft(
        "file",
        name,
        title,
        parts,
        "",
        fields={"author": author, "format": name.rpartition(".")[2].lower() if "." in name else ""},
        metrics={"words": words, **metrics},
        people=people(author),
        updated=iso(found.get("created")),
    )


def _clean_title(title: str) -> str:
    """A title from metadata, or "" where a program filled it in."""
    title = _FILE_NAME.sub("", _MADE_BY.sub("", one_line(title)))
    return "" if _NO_TITLE.match(title) or len(title) < 3 else title


def _is_title(line: str) -> bool:
    return (
        3 <= len(line) <= _TITLE_LINE and not line.endswith((".", ",", ";")) and any(map(str.isalpha, line))
    )


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    return (base.rpartition(".")[0] or base).replace("_", " ").strip()
