"""Confluence pages, from any of the ways to get them out.

| shape | known by | read by |
|---|---|---|
| HTML space export or a saved page, one page per file | HTML markup | this module |
| REST v1 and v2 JSON: a page, `results`, lines, pages one after another | `{` or `[` | `confluence_rest` |
| storage format, one page per file | `ac:` or `ri:` elements | `storage_format` |
| `entities.xml` of a site or space backup | `<hibernate-generic` | `confluence_backup` |
"""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from alchemy.records import Draft, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.confluence_backup import read_backup
from alchemy.sources.confluence_rest import rest_page
from alchemy.sources.drafts import draft, people
from alchemy.sources.json_records import head_text, read_records
from alchemy.sources.page_content import page_metrics, without_title
from alchemy.sources.reasons import Unreadable, rejected_by
from alchemy.sources.storage_format import is_storage_format, storage_content
from alchemy.text.decode import Undecodable, decode
from alchemy.text.html import node_text, parse_html, read_html

_MARKUP = re.compile(r"<(?:!doctype\s+html|html|head|body|div|p|h[1-6]|table|article|main|section)\b", re.I)
_SPACE = re.compile(r"\A(.{1,80}?)\s+(?:--|:|–|—)\s+(.+)\Z", re.DOTALL)
_MODIFIED = re.compile(
    r"(?:last (?:modified|updated)|edited)\b.{0,120}?\bon ([A-Z][a-z]{2,8} \d{1,2}, \d{4})"
)
_SNIFFED = 1 << 16
_BACKUP_HEAD = 4096


def read(raw: RawObject, path: Path, options: CleanOptions) -> Iterator[Draft | Rejected]:
    limit = options.max_document_bytes
    head = head_text(path)
    if head.startswith(("{", "[")):
        yield from read_records(raw, path, rest_page, ("results",), limit)
        return
    if "<hibernate-generic" in head[:_BACKUP_HEAD]:
        yield from read_backup(raw, path, limit)
        return
    if path.stat().st_size > limit:
        yield rejected_by(Unreadable("too_large", "The page is larger than the limit."), raw)
        return
    data = path.read_bytes()
    try:
        yield _page(raw, data)
    except Exception as error:
        yield rejected_by(error, raw, sample=data[:400])


def _page(raw: RawObject, data: bytes) -> Draft:
    try:
        text = decode(data).text
    except Undecodable as error:
        raise Unreadable("undecodable", "The page is not text in a known encoding.") from error
    if is_storage_format(text[:_SNIFFED]) and "<html" not in text[:_SNIFFED].lower():
        return _storage_page(raw, text)
    if not _MARKUP.search(text[:_SNIFFED]):
        raise Unreadable("unsupported", "The file is not an HTML page.")
    page = parse_html(text)
    content = read_html(page)
    key = _file_key(raw)
    whole = content.title or node_text(page.css_first("#title-text")) or node_text(page.css_first("h1"))
    space, title = _split_title(whole)
    crumbs = [node_text(node) for node in page.css("#breadcrumbs li a")]
    title = title or content.heading or key.rpartition("/")[2]
    parts = without_title(content.parts, title)
    authors = [node_text(node) for node in page.css(".page-metadata .author, .page-metadata .editor")]
    return draft(
        "page",
        key,
        title,
        parts,
        "",
        project=space or (crumbs[0] if crumbs else ""),
        fields={
            "space": space,
            "path": " > ".join(crumb for crumb in crumbs[1:] if crumb),
            "author": authors[0] if authors else "",
        },
        metrics=page_metrics(parts, content),
        people=people(*authors),
        updated=_modified(node_text(page.css_first(".page-metadata"))),
    )


def _storage_page(raw: RawObject, text: str) -> Draft:
    key = _file_key(raw)
    content = storage_content(text)
    title = content.heading or key.rpartition("/")[2]
    parts = without_title(content.parts, title)
    return draft("page", key, title, parts, "", metrics=page_metrics(parts, content))


def _file_key(raw: RawObject) -> str:
    name = raw.key.removeprefix(f"raw/{raw.source}/")
    return name.rpartition(".")[0] or name


def _split_title(whole: str) -> tuple[str, str]:
    """Space and title of "Space : Title" or "Space -- Title"."""
    match = _SPACE.match(whole)
    return (match.group(1), match.group(2)) if match else ("", whole)


def _modified(metadata: str) -> str:
    match = _MODIFIED.search(metadata)
    if not match:
        return ""
    for form in ("%b %d, %Y", "%B %d, %Y"):
        try:
            return datetime.strptime(match.group(1), form).date().isoformat()
        except ValueError:
            continue
    return ""
